// Products of bfloat16 weights and rows by vdpbf16ps, which adds the products of a pair of each to a float32 sum. The
// layout is that of the tiles (matmul_amx.inl). A sum runs over the pairs of k in order, in one lane: it is the same
// whatever tile its row falls in. The instruction rounds to nearest even and takes numbers below 2^-126 for zero, in
// what it reads and in what it gives, whatever the thread's rounding mode says.

constexpr int kPairRows = 12;           // so that sums, weights and one pair of the row fit in the registers
constexpr int64_t kPairBlockRows = 128; // whose activations stay in the cache while all panels pass

static inline vf vpair(const Bfloat* x) {
  int32_t two;
  memcpy(&two, x, sizeof two);
  return _mm512_castsi512_ps(_mm512_set1_epi32(two));
}

static inline void add_pair(vf& sum, vf x, vf w) {
  sum = _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w);
  asm("" : "+v"(sum));  // stays in its register: GCC would copy sums about, and into memory when they are many
}

// R rows of one panel.
template <int R>
static void pair_tile(const Bfloat* w, int64_t depth, const Bfloat* x, Fetch& fetch, int64_t row, const Output& out,
                      int64_t panel) {
  vf sums[R][2];
#pragma GCC unroll 16
  for (int m = 0; m < R; ++m) sums[m][0] = sums[m][1] = vzero();
  for (int64_t k = 0; k < depth; k += 32, w += 1024, x += 32) {
    fetch.step();
    for (int q = 0; q < 32; q += 2) {
      const vf w0 = _mm512_loadu_ps(w + q * 16), w1 = _mm512_loadu_ps(w + 512 + q * 16);
#pragma GCC unroll 16
      for (int m = 0; m < R; ++m) {
        const vf pair = vpair(x + m * depth + q);
        add_pair(sums[m][0], pair, w0);
        add_pair(sums[m][1], pair, w1);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < R; ++m) finish(out, row + m, panel, sums[m][0], sums[m][1]);
}

using PairTile = void (*)(const Bfloat*, int64_t, const Bfloat*, Fetch&, int64_t, const Output&, int64_t);
template <int... I> static PairTile pair_tile_of(int64_t rows, std::integer_sequence<int, I...>) {
  static constexpr PairTile tiles[] = {pair_tile<I + 1>...};
  return tiles[rows - 1];
}

// Rows are cut in tiles as alike as can be. Each fetches its share of the next panel.
static void pair_rows(const Bfloat* w, int64_t depth, const Input& in, int64_t start, int64_t stop, const Output& out,
                      int64_t panel) {
  int64_t tiles = (stop - start + kPairRows - 1) / kPairRows;
  Fetch fetch = fetch_beside(w, kPanel * depth * sizeof(Bfloat), 2048, tiles);
  for (int64_t row = start; row < stop; --tiles) {
    const int64_t height = (stop - row + tiles - 1) / tiles;
    const auto tile = pair_tile_of(height, std::make_integer_sequence<int, kPairRows>());
    tile(w, depth, in.narrow(row, depth), fetch, row, out, panel);
    row += height;
  }
}

static void multiply_bfloat(const HeliosMatrix& m, const Input& in, int64_t rows, const Output& out, int64_t first,
                            int64_t last) {
  for (int64_t start = 0; start < rows; start += kPairBlockRows) {
    const int64_t stop = start + kPairBlockRows < rows ? start + kPairBlockRows : rows;
    for (int64_t panel = first; panel < last; ++panel)
      pair_rows((const Bfloat*)m.data + panel * kPanel * m.depth, m.depth, in, start, stop, out, panel);
  }
}
