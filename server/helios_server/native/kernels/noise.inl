// Which tokens a row's noise speaks loudly for: the hash of `engine/noise.py`, bit by bit, of every id below a count.

constexpr int kWords = kLanes / 2;
typedef uint64_t Words __attribute__((vector_size(kWords * 8)));

static inline unsigned reaching(Words state, Words least) {  // bit i: whether word i is no less
#if HELIOS_VECTOR == 8
  return (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd((__m256i)(state >= least)));
#else
  return _mm512_cmpge_epu64_mask((__m512i)state, (__m512i)least);
#endif
}

// The finaliser of splitmix64.
static inline Words mixed(Words state) {
  state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9u;
  state = (state ^ state >> 27) * 0x94D049BB133111EBu;
  return state ^ state >> 31;
}

static int64_t loud(uint64_t key, int64_t count, uint64_t least, int64_t* ids, uint64_t* bits, int64_t room) {
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;
  Words state, limit;
  for (int i = 0; i < kWords; ++i) {
    state[i] = key + i * kGolden;
    limit[i] = least;
  }
  int64_t found = 0;
  for (int64_t first = 0; first < count; first += kWords, state += kWords * kGolden) {
    const Words hash = mixed(state);
    unsigned reached = reaching(hash, limit);
    if (count - first < kWords) reached &= (1u << (count - first)) - 1;
    for (; reached; reached &= reached - 1, ++found)
      if (found < room) {
        const int i = __builtin_ctz(reached);
        ids[found] = first + i;
        bits[found] = hash[i];
      }
  }
  return found;
}
