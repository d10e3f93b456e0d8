// What a matrix kernel reads: the rows themselves (FMA), or the same in fewer bits. Converted row by row, each alone.

// A row in fewer bits is lines: of 32 bfloat16, or of 64 high bytes, then 64 low ones of the same numbers. For tiles the
// lines of sixteen rows stand side by side, so that a tile is read in one stretch.
constexpr int64_t kCacheLine = 64, kLineRows = kTiles ? 16 : 1, kNextLine = kCacheLine * kLineRows;  // bytes, rows, bytes

struct Input {
  const float* x;      // [rows, in]
  int64_t stride;      // floats from row to row
  int64_t room;        // rows that `packed` has place for
  char* packed;        // [room, depth] bfloat16, int16, or two bytes
  float* units;        // [room] of the integers

  Bfloat* narrow(int64_t row, int64_t depth) const { return (Bfloat*)line(row, 2 * depth); }
  int16_t* whole(int64_t row, int64_t depth) const { return (int16_t*)packed + row * depth; }
  uint8_t* bytes(int64_t row, int64_t depth) const { return (uint8_t*)line(row, 2 * depth); }

 private:
  // The first line of a row of `size` bytes; the next ones stand kNextLine behind each other.
  char* line(int64_t row, int64_t size) const {
    return packed + row / kLineRows * kLineRows * size + row % kLineRows * kCacheLine;
  }
};

static inline bool converts(const HeliosMatrix& w) { return w.layout != Layout::kColumns && w.layout != Layout::kNibbles; }

// Tiles are read sixteen rows at a time.
static inline int64_t input_room(int64_t rows) { return round_up(rows, 16); }

static void narrow_row(const float* x, int64_t size, int64_t depth, Bfloat* to) {
  constexpr int64_t kCount = kCacheLine / sizeof(Bfloat), kNext = kNextLine / sizeof(Bfloat);
  for (int64_t i = 0; i < depth; i += kLanes) vstore(to + i / kCount * kNext + i % kCount, vload_upto(x, i, size));
}

// The largest integer of an activation for which no sum of `in` products with int8 weights leaves 32 bits.
static inline float largest_integer(int64_t in) {
  const int64_t most = 2147483647 / (128 * in);
  return (float)(most < 32512 ? most : 32512);
}

struct Scale { float unit, per_unit; };

// A row's unit: NaN if the row is not finite, so that its products are none either.
static Scale scale_of(const float* x, int64_t size) {
  vf top = vzero(), trace = vzero();
  for (int64_t i = 0; i < size; i += kLanes) {
    const vf v = vload_upto(x, i, size);
    top = vmax(top, vabs(v));
    trace = vfma(v, vzero(), trace);
  }
  const float highest = vtop(top), most = largest_integer(size);
  if (highest < 1e-30f) return {vsum(trace), 0.f};  // no number of use; its inverse might be none
  return {highest / most + vsum(trace), most / highest};
}

static void split_row(const float* x, int64_t size, int64_t depth, float per_unit, uint8_t* to);
static void whole_row(const float* x, int64_t size, int64_t depth, float per_unit, int16_t* to);

// Prepares rows [first, last) for a product with w.
static void convert(const HeliosMatrix& w, const Input& in, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) {
    const float* x = in.x + row * in.stride;
    if (w.layout == Layout::kTilePairs) {
      narrow_row(x, w.in, w.depth, in.narrow(row, w.depth));
      continue;
    }
    const Scale scale = scale_of(x, w.in);
    in.units[row] = scale.unit;
    if (w.layout == Layout::kPairs)
      whole_row(x, w.in, w.depth, scale.per_unit, in.whole(row, w.depth));
    else
      split_row(x, w.in, w.depth, scale.per_unit, in.bytes(row, w.depth));
  }
}
