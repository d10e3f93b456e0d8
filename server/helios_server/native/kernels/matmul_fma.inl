// Products of 16-bit weights and float32 rows by fused multiply-add. A sum runs over k in order, in one lane: it is the
// same whatever tile its row falls in.

constexpr int kTileRows = kLanes == 8 ? 6 : 12;  // so that sums, weights and one activation fit in the registers
constexpr int64_t kFmaBlockRows = 128;           // whose activations stay in the cache while all panels pass
constexpr int64_t kFmaStep = 32;                 // of k between two fetches
// From so many rows on a panel is widened to float32 once, and not in each tile. Vectors of 16 do without: they convert
// half as often, and a float32 panel would no longer fit in the nearest cache.
constexpr int64_t kWideRows = kLanes == 8 ? 2 * kTileRows : INT64_MAX;

template <class W, int R>
static void fma_tile(const W* w, int64_t depth, const Input& in, Fetch& fetch, int64_t row, const Output& out,
                     int64_t panel) {
  vf sums[R][2];
#pragma GCC unroll 16
  for (int m = 0; m < R; ++m) sums[m][0] = sums[m][1] = vzero();
  const float* x = in.x + row * in.stride;
  const int64_t stride = in.stride;
  for (int64_t k = 0; k < depth;) {
    fetch.step();
    for (const int64_t stop = depth - k < kFmaStep ? depth : k + kFmaStep; k < stop; ++k, w += kPanel) {
      const vf w0 = vload(w), w1 = vload(w + kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < R; ++m) {
        const vf a = vset1(x[m * stride + k]);
        sums[m][0] = vfma(a, w0, sums[m][0]);
        sums[m][1] = vfma(a, w1, sums[m][1]);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < R; ++m) finish(out, row + m, panel, sums[m][0], sums[m][1]);
}

// One row, P panels side by side: one panel alone would wait for each of its additions longer than for memory.
template <class W, int P>
static void fma_lone(const W* w, int64_t depth, const Input& in, const Output& out, int64_t panel) {
  vf sums[P][2];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) sums[p][0] = sums[p][1] = vzero();
  const int64_t size = depth * kPanel;
  for (int64_t k = 0; k < depth; ++k) {
    const vf a = vset1(in.x[k]);
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      const W* at = w + p * size + k * kPanel;
      if (k * kPanel % 32 == 0) _mm_prefetch((const char*)at + kAhead / 2, _MM_HINT_T0);  // each line once
      sums[p][0] = vfma(a, vload(at), sums[p][0]);
      sums[p][1] = vfma(a, vload(at + kLanes), sums[p][1]);
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) finish(out, 0, panel + p, sums[p][0], sums[p][1]);
}

template <class W> using FmaTile = void (*)(const W*, int64_t, const Input&, Fetch&, int64_t, const Output&, int64_t);
template <class W, int... I> static FmaTile<W> fma_tile_of(int64_t rows, std::integer_sequence<int, I...>) {
  static constexpr FmaTile<W> tiles[] = {fma_tile<W, I + 1>...};
  return tiles[rows - 1];
}

struct Packed {  // a panel as the matrix keeps it
  const void* data;
  int64_t bytes;
};

// Rows are cut in tiles as alike as can be: 13 are 7 and 6, not 12 and 1. Each fetches its share of the panel behind
// `packed`, which `w` is the same as, or widened.
template <class W>
static void fma_rows(const W* w, Packed packed, int64_t depth, const Input& in, int64_t start, int64_t stop,
                     const Output& out, int64_t panel) {
  int64_t tiles = (stop - start + kTileRows - 1) / kTileRows;
  Fetch fetch = fetch_beside(packed.data, packed.bytes, packed.bytes * kFmaStep / depth, tiles);
  for (int64_t row = start; row < stop; --tiles) {
    const int64_t height = (stop - row + tiles - 1) / tiles;
    fma_tile_of<W>(height, std::make_integer_sequence<int, kTileRows>())(w, depth, in, fetch, row, out, panel);
    row += height;
  }
}

template <class W>
static void fma_lone_row(const W* w, int64_t depth, const Input& in, const Output& out, int64_t first, int64_t last) {
  const int64_t size = depth * kPanel;
  int64_t panel = first;
  for (; panel + 4 <= last; panel += 4) fma_lone<W, 4>(w + panel * size, depth, in, out, panel);
  for (; panel + 2 <= last; panel += 2) fma_lone<W, 2>(w + panel * size, depth, in, out, panel);
  if (panel < last) fma_lone<W, 1>(w + panel * size, depth, in, out, panel);
}

// wide: [in, panel] of this thread.
template <class W>
static void multiply_fma(const HeliosMatrix& m, const Input& in, int64_t rows, const Output& out, int64_t first,
                         int64_t last, float* wide) {
  const W* w = (const W*)m.data;
  if (rows == 1) return fma_lone_row(w, m.depth, in, out, first, last);
  const int64_t size = m.depth * kPanel;
  for (int64_t start = 0; start < rows; start += kFmaBlockRows) {
    const int64_t stop = start + kFmaBlockRows < rows ? start + kFmaBlockRows : rows;
    for (int64_t panel = first; panel < last; ++panel) {
      const W* own = w + panel * size;
      const Packed packed{own, size * (int64_t)sizeof(W)};
      if (stop - start <= kWideRows) {
        fma_rows(own, packed, m.depth, in, start, stop, out, panel);
        continue;
      }
      for (int64_t i = 0; i < size; i += kLanes) vstore(wide + i, vload(own + i));
      fma_rows<float>(wide, packed, m.depth, in, start, stop, out, panel);
    }
  }
}
