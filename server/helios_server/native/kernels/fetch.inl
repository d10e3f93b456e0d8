// Weights come from memory when they are first used. Whoever computes with some asks for those that come next, so that
// memory is read at an even pace, whatever there is to do with what has come.

constexpr int kAhead = 4096;  // bytes, for one who passes over weights once

// Lines that a tile asks for, into the nearest cache: so many at each step over k, from there on.
struct Fetch {
  const char* from;
  int64_t lines;

  void step() {
    for (const char* stop = from + lines * 64; from < stop; from += 64) _mm_prefetch(from, _MM_HINT_T0);
  }
};

// For `tiles` tiles that pass over the same panel, one after the other, in steps of `step` bytes each: the share of each
// in the next panel. One alone runs ahead of itself.
static inline Fetch fetch_beside(const void* panel, int64_t bytes, int64_t step, int64_t tiles) {
  const int64_t lines = step / 64;
  return {(const char*)panel + (tiles == 1 ? kAhead : bytes), (lines + tiles - 1) / tiles};
}
