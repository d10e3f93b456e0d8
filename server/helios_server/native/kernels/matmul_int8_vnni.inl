// Products of int8 weights and rows of 16-bit integers, which are two bytes each: 256 * high + low. Sums are exact, so
// no order matters. Here by VNNI, which wants the row's bytes unsigned; matmul_amx.inl by tiles, from the same.

constexpr int kHighOffset = 128;

static void split_row(const float* x, int64_t size, int64_t depth, float per_unit, uint8_t* to) {
  for (int64_t i = 0; i < depth; i += kLanes) {
    const __m512i v = _mm512_cvtps_epi32(vmul(vload_upto(x, i, size), vset1(per_unit)));
    const __m512i top = _mm512_add_epi32(_mm512_srai_epi32(v, 8), _mm512_set1_epi32(kHighOffset));
    uint8_t* at = to + i / kCacheLine * 2 * kNextLine + i % kCacheLine;
    _mm_storeu_si128((__m128i*)at, _mm512_cvtepi32_epi8(top));
    _mm_storeu_si128((__m128i*)(at + kNextLine), _mm512_cvtepi32_epi8(v));
  }
}

static void whole_row(const float*, int64_t, int64_t, float, int16_t*) {}  // no layout here is of whole integers

// A panel's columns: what turns sums of the two bytes into their products.
struct Columns {
  __m512i offsets[2];  // each high byte is 128 too large
  vf scales[2];

  // 256 * high + low in units of the row and the columns. It fits in 32 bits: `largest_integer` sees to that.
  vf scaled(int half, __m512i high, __m512i low, vf unit) const {
    const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_sub_epi32(high, offsets[half]), 8), low);
    return vmul(vmul(_mm512_cvtepi32_ps(sum), unit), scales[half]);
  }
};

static inline Columns columns_of(const HeliosMatrix& m, int64_t panel) {
  Columns columns;
  for (int half = 0; half < 2; ++half) {
    const int64_t first = panel * kPanel + half * kLanes;
    columns.offsets[half] = _mm512_slli_epi32(_mm512_loadu_si512(m.sums + first), 7);
    columns.scales[half] = vload(m.scales + first);
  }
  return columns;
}

static inline __m512i quad(const uint8_t* x) {
  int32_t four;
  memcpy(&four, x, sizeof four);
  return _mm512_set1_epi32(four);
}

static inline void add_products(__m512i& sum, __m512i x, __m512i w) {
  sum = _mm512_dpbusd_epi32(sum, x, w);
  asm("" : "+v"(sum));  // stays in its register: GCC would copy sums about, and into memory when they are many
}

constexpr int kInt8Rows = 6;  // so that sums of both bytes, weights and two bytes of the row fit in the registers
constexpr int64_t kInt8Step = 64;  // of k between two fetches

template <int R>
static void int8_tile(const HeliosMatrix& m, const Input& in, Fetch& fetch, int64_t row, const Output& out,
                      int64_t panel) {
  __m512i highs[R][2], lows[R][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) highs[r][0] = highs[r][1] = lows[r][0] = lows[r][1] = _mm512_setzero_si512();
  const int64_t depth = m.depth;
  const int8_t* w = (const int8_t*)m.data + panel * kPanel * depth;
  const uint8_t* x = in.bytes(row, depth);
  const int64_t next_row = kTiles ? kCacheLine : 2 * depth;  // tiles: all in the same sixteen
  for (int64_t block = 0; block < depth; block += kInt8Step, w += 2048, x += 2 * kNextLine) {
    fetch.step();
    for (int q = 0; q < 16; ++q) {
      const __m512i w0 = _mm512_loadu_si512(w + q * 64), w1 = _mm512_loadu_si512(w + 1024 + q * 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const uint8_t* at = x + r * next_row + q * 4;
        const __m512i h = quad(at), l = quad(at + kNextLine);
        add_products(highs[r][0], h, w0);
        add_products(highs[r][1], h, w1);
        add_products(lows[r][0], l, w0);
        add_products(lows[r][1], l, w1);
      }
    }
  }
  const Columns columns = columns_of(m, panel);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const vf unit = vset1(in.units[row + r]);
    finish(out, row + r, panel, columns.scaled(0, highs[r][0], lows[r][0], unit),
           columns.scaled(1, highs[r][1], lows[r][1], unit));
  }
}
