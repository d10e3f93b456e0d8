// Products of int8 weights and rows of 16-bit integers by vpmaddwd. Sums are exact, so no order matters.

static inline __m256i integers(const float* x, int64_t i, int64_t size, float per_unit) {
  return _mm256_cvtps_epi32(vmul(vload_upto(x, i, size), vset1(per_unit)));
}

static void whole_row(const float* x, int64_t size, int64_t depth, float per_unit, int16_t* to) {
  for (int64_t i = 0; i < depth; i += kLanes) {
    const __m256i v = integers(x, i, size, per_unit);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(v, v), 0x08);
    const int64_t left = depth - i;
    if (left >= kLanes) _mm_storeu_si128((__m128i*)(to + i), _mm256_castsi256_si128(packed));
    else memcpy(to + i, &packed, left * sizeof *to);
  }
}

static void split_row(const float*, int64_t, int64_t, float, uint8_t*) {}  // no layout here is of bytes

static inline __m256i weights16(const int8_t* w) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)w)); }
static inline __m256i pair(const int16_t* x) {
  int32_t two;
  memcpy(&two, x, sizeof two);
  return _mm256_set1_epi32(two);
}

static inline void add_products(__m256i& sum, __m256i a, __m256i w) {
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, w));
  asm("" : "+x"(sum));  // stays in its register: GCC would copy sums about, and into memory when they are many
}

constexpr int kInt8Rows = 6;       // so that sums, weights and a pair of the row fit in the registers
constexpr int64_t kInt8Step = 32;  // of k between two fetches

template <int R>
static void int8_tile(const HeliosMatrix& m, const Input& in, Fetch& fetch, int64_t row, const Output& out,
                      int64_t panel) {
  __m256i sums[R][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
  const int64_t depth = m.depth;
  const int8_t* w = (const int8_t*)m.data + panel * kPanel * depth;
  const int16_t* x = in.whole(row, depth);
  for (int64_t k = 0; k < depth;) {
    fetch.step();
    for (const int64_t stop = depth - k < kInt8Step ? depth : k + kInt8Step; k < stop; k += 2, w += 2 * kPanel) {
      const __m256i w0 = weights16(w), w1 = weights16(w + kPanel);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m256i a = pair(x + r * depth + k);
        add_products(sums[r][0], a, w0);
        add_products(sums[r][1], a, w1);
      }
    }
  }
  const float* scales = m.scales + panel * kPanel;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const vf unit = vset1(in.units[row + r]);
    finish(out, row + r, panel, vmul(vmul(_mm256_cvtepi32_ps(sums[r][0]), unit), vload(scales)),
           vmul(vmul(_mm256_cvtepi32_ps(sums[r][1]), unit), vload(scales + kLanes)));
  }
}
