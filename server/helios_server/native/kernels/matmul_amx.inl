// Products by AMX tiles: bfloat16 weights and rows (float32 sums), int8 weights and rows of two bytes (exact sums). A
// tile's row is summed alone, in an order that k alone sets. Tiles 0 to 3: sums; 4, 5: rows; 6, 7: weights.

struct TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};

// Sums and rows have `rows` lines, weights 16.
static void configure(int rows) {
  alignas(64) TileConfig config = {};
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    config.bytes[tile] = 64;
    config.rows[tile] = (uint8_t)(tile < 6 ? rows : 16);
  }
  _tile_loadconfig(&config);
}

// Weights come from memory when they are first used: a few tiles ahead into the nearest cache when there is little to
// do between loads, further ahead into the next one when there is more. 0: they are in a cache already.
constexpr int kNear = 4096, kFar = 16384;

template <int AHEAD> static inline void fetch_ahead(const void* weights) {
  if constexpr (AHEAD > 0)
    for (int line = 0; line < 2048; line += 64)
      _mm_prefetch((const char*)weights + AHEAD + line, AHEAD > 8192 ? _MM_HINT_T1 : _MM_HINT_T0);
}

static void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// 16 rows
template <int AHEAD> static inline void bfloat_block(const Bfloat* w, const Bfloat* x, int64_t depth) {
  for (int64_t k = 0; k < depth; k += 32, w += 1024) {
    _tile_loadd(4, x + k, depth * 2);
    _tile_loadd(6, w, 64);
    _tile_loadd(7, w + 512, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    fetch_ahead<AHEAD>(w);
  }
}

// 32 rows
template <int AHEAD> static inline void bfloat_blocks(const Bfloat* w, const Bfloat* x, int64_t depth) {
  const Bfloat* below = x + 16 * depth;
  for (int64_t k = 0; k < depth; k += 32, w += 1024) {
    _tile_loadd(4, x + k, depth * 2);
    _tile_loadd(6, w, 64);
    _tile_loadd(7, w + 512, 64);
    _tile_loadd(5, below + k, depth * 2);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    fetch_ahead<AHEAD>(w);
  }
}

// Puts up to 16 rows of the sums in tiles 0 and 1, or (below) in 2 and 3.
static inline void put_bfloat_sums(const Output& out, int64_t row, int64_t rows, int64_t panel, bool below) {
  alignas(64) float left[16 * 16], right[16 * 16];
  if (below) {  // the number of a tile is part of the instruction
    _tile_stored(2, left, 64);
    _tile_stored(3, right, 64);
  } else {
    _tile_stored(0, left, 64);
    _tile_stored(1, right, 64);
  }
  for (int64_t r = 0; r < rows && r < 16; ++r) finish(out, row + r, panel, vload(left + r * 16), vload(right + r * 16));
}

// Rows in blocks of 256, whose activations stay in the cache while all panels pass.
constexpr int64_t kBlockRows = 256;

static void multiply_bfloat(const HeliosMatrix& m, const Input& in, int64_t rows, const Output& out, int64_t first,
                            int64_t last) {
  configure(rows < 16 ? (int)rows : 16);
  for (int64_t start = 0; start < rows; start += kBlockRows) {
    const int64_t stop = start + kBlockRows < rows ? start + kBlockRows : rows;
    for (int64_t panel = first; panel < last; ++panel) {
      const Bfloat* w = (const Bfloat*)m.data + panel * kPanel * m.depth;
      for (int64_t row = start; row < stop; row += 32) {
        const Bfloat* x = in.narrow(row, m.depth);
        const bool two = row + 16 < stop, fresh = row == start;
        zero_sums();
        if (two) (fresh ? bfloat_blocks<kFar> : bfloat_blocks<0>)(w, x, m.depth);
        else (fresh ? bfloat_block<kNear> : bfloat_block<0>)(w, x, m.depth);
        put_bfloat_sums(out, row, stop - row, panel, false);
        if (two) put_bfloat_sums(out, row + 16, stop - row - 16, panel, true);
      }
    }
  }
  _tile_release();
}

template <int AHEAD>
static inline void int8_block(const int8_t* w, const uint8_t* x, int64_t depth) {
  for (int64_t k = 0; k < depth; k += 64, w += 2048, x += 128) {
    _tile_loadd(4, x, 2 * depth);
    _tile_loadd(6, w, 64);
    _tile_loadd(7, w + 1024, 64);
    _tile_loadd(5, x + 64, 2 * depth);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
    fetch_ahead<AHEAD>(w);
  }
}

static inline void put_int8_sums(const HeliosMatrix& m, const Input& in, const Output& out, int64_t row, int64_t rows,
                                 int64_t panel) {
  alignas(64) int32_t sums[4][16 * 16];
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  _tile_stored(2, sums[2], 64);
  _tile_stored(3, sums[3], 64);
  const float* scales = m.scales + panel * kPanel;
  for (int64_t r = 0; r < rows && r < 16; ++r) {
    const vf unit = vset1(in.units[row + r]);
    vf v[2];
    for (int j = 0; j < 2; ++j)
      v[j] = scaled(_mm512_load_si512(sums[j] + r * 16), _mm512_load_si512(sums[j + 2] + r * 16), unit,
                    scales + j * kLanes);
    finish(out, row + r, panel, v[0], v[1]);
  }
}

static void multiply_int8_tiles(const HeliosMatrix& m, const Input& in, int64_t rows, const Output& out, int64_t first,
                                int64_t last) {
  configure(rows < 16 ? (int)rows : 16);
  for (int64_t start = 0; start < rows; start += kBlockRows) {
    const int64_t stop = start + kBlockRows < rows ? start + kBlockRows : rows;
    for (int64_t panel = first; panel < last; ++panel) {
      const int8_t* w = (const int8_t*)m.data + panel * kPanel * m.depth;
      for (int64_t row = start; row < stop; row += 16) {
        const uint8_t* x = in.bytes(row, m.depth);
        zero_sums();
        if (row > start) int8_block<0>(w, x, m.depth);
        else (rows > 16 ? int8_block<kFar> : int8_block<kNear>)(w, x, m.depth);
        put_int8_sums(m, in, out, row, stop - row, panel);
      }
    }
  }
  _tile_release();
}
