// AMX tiles as plain loops, under the names of the intrinsics: slow, and for tests alone. Included inside a namespace,
// where these names hide the real ones.
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#undef _tile_dpbusd

struct EmulatedTile {
  int rows, bytes;
  alignas(64) uint8_t data[16][64];
};
static thread_local EmulatedTile emulated[8];

static void _tile_loadconfig(const void* config) {
  const uint8_t* bytes = (const uint8_t*)config;
  for (int tile = 0; tile < 8; ++tile) {
    emulated[tile].bytes = bytes[16 + 2 * tile] | bytes[17 + 2 * tile] << 8;
    emulated[tile].rows = bytes[48 + tile];
    memset(emulated[tile].data, 0, sizeof emulated[tile].data);
  }
}
static void _tile_release() {
  for (EmulatedTile& tile : emulated) tile.rows = tile.bytes = 0;
}
static void _tile_zero(int tile) { memset(emulated[tile].data, 0, sizeof emulated[tile].data); }
static void _tile_loadd(int tile, const void* from, int64_t stride) {
  EmulatedTile& t = emulated[tile];
  memset(t.data, 0, sizeof t.data);
  for (int row = 0; row < t.rows; ++row) memcpy(t.data[row], (const char*)from + row * stride, t.bytes);
}
static void _tile_stored(int tile, void* to, int64_t stride) {
  const EmulatedTile& t = emulated[tile];
  for (int row = 0; row < t.rows; ++row) memcpy((char*)to + row * stride, t.data[row], t.bytes);
}

template <class T> static T emulated_element(int tile, int row, int i) {
  T value;
  memcpy(&value, emulated[tile].data[row] + i * sizeof(T), sizeof(T));
  return value;
}

// sums[m][n] += product of the groups x[m][k] and w[k][n], for each k in order.
template <class Sum, class F> static void emulate_product(int sums, int x, int w, F product) {
  EmulatedTile& t = emulated[sums];
  for (int m = 0; m < t.rows; ++m)
    for (int n = 0; n < t.bytes / 4; ++n) {
      Sum sum = emulated_element<Sum>(sums, m, n);
      for (int k = 0; k < emulated[x].bytes / 4; ++k) sum = product(sum, m, n, k);
      memcpy(t.data[m] + n * 4, &sum, 4);
    }
  (void)w;
}
static inline float emulated_float(int tile, int row, int i) {
  const uint32_t bits = (uint32_t)emulated_element<uint16_t>(tile, row, i) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
static void _tile_dpbf16ps(int sums, int x, int w) {
  emulate_product<float>(sums, x, w, [=](float sum, int m, int n, int k) {
    for (int j = 0; j < 2; ++j)
      sum = fmaf(emulated_float(x, m, 2 * k + j), emulated_float(w, k, 2 * n + j), sum);
    return sum;
  });
}
template <class X> static void emulate_bytes(int sums, int x, int w) {
  emulate_product<int32_t>(sums, x, w, [=](int32_t sum, int m, int n, int k) {
    uint32_t wrapped = (uint32_t)sum;  // as the hardware: without a check
    for (int j = 0; j < 4; ++j)
      wrapped += (uint32_t)(emulated_element<X>(x, m, 4 * k + j) * emulated_element<int8_t>(w, k, 4 * n + j));
    return (int32_t)wrapped;
  });
}
static void _tile_dpbssd(int sums, int x, int w) { emulate_bytes<int8_t>(sums, x, w); }
static void _tile_dpbusd(int sums, int x, int w) { emulate_bytes<uint8_t>(sums, x, w); }
