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
  __asm__ volatile("" : : : "memory");  // GCC declares that only the first eight bytes are read, and may drop the others
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

// Sums of a block of rows on their way out: finished a few at each step of the next block's products, which occupy
// other parts of the processor. Sums: BfloatSums or Int8Sums.
template <class Sums> class Waiting {
 public:
  Waiting(const Sums& sums, const Output& out) : sums_(sums), out_(out) {}
  ~Waiting() { finish_up_to(rows_); }

  void step() { finish_up_to(next_ + 2 < rows_ ? next_ + 2 : rows_); }

  // What the tiles hold now: sums of `rows` rows from `row` on.
  void take(int64_t row, int64_t rows, int64_t panel) {
    finish_up_to(rows_);
    sums_.take(rows, panel);
    row_ = row;
    rows_ = rows;
    panel_ = panel;
    next_ = 0;
  }

 private:
  void finish_up_to(int64_t end) {
    for (; next_ < end; ++next_) {
      vf v[2];
      for (int half = 0; half < 2; ++half) v[half] = sums_.at(row_, next_, half);
      finish(out_, row_ + next_, panel_, v[0], v[1]);
    }
  }

  Sums sums_;
  const Output& out_;
  int64_t row_ = 0, rows_ = 0, panel_ = 0, next_ = 0;
};

struct BfloatSums {
  alignas(64) float tiles[4][16 * 16];

  void take(int64_t rows, int64_t) {
    _tile_stored(0, tiles[0], 64);
    _tile_stored(1, tiles[1], 64);
    if (rows <= 16) return;
    _tile_stored(2, tiles[2], 64);
    _tile_stored(3, tiles[3], 64);
  }
  vf at(int64_t, int64_t index, int half) const { return vload(tiles[index / 16 * 2 + half] + index % 16 * 16); }
};

// 16 rows
template <int AHEAD>
static inline void bfloat_block(const Bfloat* w, const Bfloat* x, int64_t depth, Waiting<BfloatSums>& before) {
  for (int64_t k = 0; k < depth; k += 32, w += 1024, x += 512) {
    _tile_loadd(4, x, 64);
    _tile_loadd(6, w, 64);
    _tile_loadd(7, w + 512, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    fetch_ahead<AHEAD>(w);
    before.step();
  }
}

// 32 rows
template <int AHEAD>
static inline void bfloat_blocks(const Bfloat* w, const Bfloat* x, int64_t depth, Waiting<BfloatSums>& before) {
  const Bfloat* below = x + 16 * depth;
  for (int64_t k = 0; k < depth; k += 32, w += 1024, x += 512, below += 512) {
    _tile_loadd(4, x, 64);
    _tile_loadd(6, w, 64);
    _tile_loadd(7, w + 512, 64);
    _tile_loadd(5, below, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    fetch_ahead<AHEAD>(w);
    before.step();
  }
}

// Rows in blocks of 256, whose activations stay in the cache while all panels pass.
constexpr int64_t kBlockRows = 256;

static void multiply_bfloat(const HeliosMatrix& m, const Input& in, int64_t rows, const Output& out, int64_t first,
                            int64_t last) {
  configure(rows < 16 ? (int)rows : 16);
  {
    Waiting<BfloatSums> sums({}, out);
    for (int64_t start = 0; start < rows; start += kBlockRows) {
      const int64_t stop = start + kBlockRows < rows ? start + kBlockRows : rows;
      for (int64_t panel = first; panel < last; ++panel) {
        const Bfloat* w = (const Bfloat*)m.data + panel * kPanel * m.depth;
        for (int64_t row = start; row < stop; row += 32) {
          const Bfloat* x = in.narrow(row, m.depth);
          const bool two = row + 16 < stop, fresh = row == start;
          zero_sums();
          if (two) (fresh ? bfloat_blocks<kFar> : bfloat_blocks<0>)(w, x, m.depth, sums);
          else (fresh ? bfloat_block<kNear> : bfloat_block<0>)(w, x, m.depth, sums);
          sums.take(row, stop - row < 32 ? stop - row : 32, panel);
        }
      }
    }
  }
  _tile_release();
}

struct Int8Sums {
  const HeliosMatrix& m;
  const Input& in;
  Columns columns;
  alignas(64) int32_t tiles[4][16 * 16];

  void take(int64_t, int64_t panel) {
    _tile_stored(0, tiles[0], 64);
    _tile_stored(1, tiles[1], 64);
    _tile_stored(2, tiles[2], 64);
    _tile_stored(3, tiles[3], 64);
    columns = columns_of(m, panel);
  }
  vf at(int64_t row, int64_t index, int half) const {
    return columns.scaled(half, _mm512_load_si512(tiles[half] + index * 16),
                          _mm512_load_si512(tiles[half + 2] + index * 16), vset1(in.units[row + index]));
  }
};

template <int AHEAD>
static inline void int8_block(const int8_t* w, const uint8_t* x, int64_t depth, Waiting<Int8Sums>& before) {
  for (int64_t k = 0; k < depth; k += 64, w += 2048, x += 2048) {
    _tile_loadd(4, x, 64);
    _tile_loadd(6, w, 64);
    _tile_loadd(7, w + 1024, 64);
    _tile_loadd(5, x + 1024, 64);
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
    fetch_ahead<AHEAD>(w);
    before.step();
  }
}

// So few rows leave a tile's arithmetic idle, and vectors read weights faster. Sums are exact: no bit tells which.
constexpr int64_t kVectorRows = 2;

static void multiply_int8_tiles(const HeliosMatrix& m, const Input& in, int64_t rows, const Output& out, int64_t first,
                                int64_t last) {
  if (rows <= kVectorRows) return multiply_int8(m, in, rows, out, first, last);
  configure(rows < 16 ? (int)rows : 16);
  {
    Waiting<Int8Sums> sums({m, in, {}, {}}, out);
    for (int64_t start = 0; start < rows; start += kBlockRows) {
      const int64_t stop = start + kBlockRows < rows ? start + kBlockRows : rows;
      for (int64_t panel = first; panel < last; ++panel) {
        const int8_t* w = (const int8_t*)m.data + panel * kPanel * m.depth;
        for (int64_t row = start; row < stop; row += 16) {
          const uint8_t* x = in.bytes(row, m.depth);
          zero_sums();
          if (row > start) int8_block<0>(w, x, m.depth, sums);
          else (rows > 16 ? int8_block<kFar> : int8_block<kNear>)(w, x, m.depth, sums);
          sums.take(row, stop - row < 16 ? stop - row : 16, panel);
        }
      }
    }
  }
  _tile_release();
}
