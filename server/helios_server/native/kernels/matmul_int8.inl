// Rows of a product with int8 weights, cut in tiles (matmul_int8_vnni.inl, matmul_int8_avx2.inl). Sums are exact: tiles and
// blocks change no bit.

constexpr int64_t kInt8BlockRows = 128;  // whose activations stay in the cache while all panels pass

using Int8Tile = void (*)(const HeliosMatrix&, const Input&, Fetch&, int64_t, const Output&, int64_t);
template <int... I> static Int8Tile int8_tile_of(int64_t rows, std::integer_sequence<int, I...>) {
  static constexpr Int8Tile tiles[] = {int8_tile<I + 1>...};
  return tiles[rows - 1];
}

// Rows are cut in tiles as alike as can be. Each fetches its share of the next panel.
static void int8_rows(const HeliosMatrix& m, const Input& in, int64_t start, int64_t stop, const Output& out,
                      int64_t panel) {
  const int64_t size = kPanel * m.depth;
  int64_t tiles = (stop - start + kInt8Rows - 1) / kInt8Rows;
  Fetch fetch = fetch_beside((const int8_t*)m.data + panel * size, size, kInt8Step * kPanel, tiles);
  for (int64_t row = start; row < stop; --tiles) {
    const int64_t height = (stop - row + tiles - 1) / tiles;
    int8_tile_of(height, std::make_integer_sequence<int, kInt8Rows>())(m, in, fetch, row, out, panel);
    row += height;
  }
}

static void multiply_int8(const HeliosMatrix& m, const Input& in, int64_t rows, const Output& out, int64_t first,
                          int64_t last) {
  for (int64_t start = 0; start < rows; start += kInt8BlockRows) {
    const int64_t stop = start + kInt8BlockRows < rows ? start + kInt8BlockRows : rows;
    for (int64_t panel = first; panel < last; ++panel) int8_rows(m, in, start, stop, out, panel);
  }
}
