// Vectors of 16 floats. Included inside a namespace, by avx512.cpp and amx.cpp; simd_avx2.h has the same names.

typedef __m512 vf;
constexpr int kLanes = 16;

static inline vf vzero() { return _mm512_setzero_ps(); }
static inline vf vset1(float x) { return _mm512_set1_ps(x); }
static inline vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
// Where one is NaN, the second is the result.
static inline vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vabs(vf v) { return _mm512_abs_ps(v); }
static inline vf vround(vf v) { return _mm512_roundscale_ps(v, 0); }
static inline vf vpow2(vf n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
// Bit i: whether lanes i are equal.
static inline unsigned vequal(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }

static inline vf vload(const float* p) { return _mm512_loadu_ps(p); }
static inline vf vload(const Half* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
static inline vf vwiden(__m256i bfloats) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bfloats), 16));
}
static inline vf vload(const Bfloat* p) { return vwiden(_mm256_loadu_si256((const __m256i*)p)); }
static inline __m256i vnarrow(vf v) {  // to bfloat16: to nearest, ties to even
  const __m512i x = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(x, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), odd));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}
static inline vf vload(const Byte* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))); }
static inline void vnibbles(const uint8_t* p, vf& low, vf& high) {
  const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
  low = _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(15)));
  high = _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4));
}
static inline void vstore(float* p, vf v) { _mm512_storeu_ps(p, v); }
static inline void vstore(Half* p, vf v) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(v, 0)); }
static inline void vstore(Bfloat* p, vf v) { _mm256_storeu_si256((__m256i*)p, vnarrow(v)); }
static inline void vstore(Byte* p, vf v) {  // to nearest, ties to even; beyond int8 the last value
  _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
}

// The first n lanes, 0 <= n <= kLanes; the others are zero, and their memory is not touched.
static inline __mmask16 vfirst(int n) { return (__mmask16)((1u << n) - 1); }
static inline vf vload_part(const float* p, int n) { return _mm512_maskz_loadu_ps(vfirst(n), p); }
static inline vf vload_part(const Half* p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vfirst(n), p)); }
static inline vf vload_part(const Bfloat* p, int n) { return vwiden(_mm256_maskz_loadu_epi16(vfirst(n), p)); }
static inline void vstore_part(float* p, vf v, int n) { _mm512_mask_storeu_ps(p, vfirst(n), v); }
static inline void vstore_part(Half* p, vf v, int n) {
  _mm256_mask_storeu_epi16(p, vfirst(n), _mm512_cvtps_ph(v, 0));
}
static inline void vstore_part(Bfloat* p, vf v, int n) { _mm256_mask_storeu_epi16(p, vfirst(n), vnarrow(v)); }
static inline vf vload_part(const Byte* p, int n) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(vfirst(n), p)));
}
static inline void vstore_part(Byte* p, vf v, int n) {
  _mm_mask_storeu_epi8(p, vfirst(n), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
}
static inline vf vkeep(vf v, int n) { return _mm512_maskz_mov_ps(vfirst(n), v); }

static inline float vfirst_lane(vf v) { return _mm512_cvtss_f32(v); }
static inline float vsum(vf v) { return _mm512_reduce_add_ps(v); }
static inline float vtop(vf v) { return _mm512_reduce_max_ps(v); }
static inline vf vlow_high(vf a, vf b) {  // [a0 + a2, b0 + b2 | ...] by pairs of lanes
  const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
  return vadd(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}
static inline vf vquarters(vf a, vf b) {
  return vadd(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
// Lane i: the sum of v[i], by a tree that is the same for all: four lanes that stand together in this order, by pairs; then
// fours by pairs.
constexpr int kPairing[4] = {0, 2, 1, 3};
static inline vf vsums(const vf* v) {
  vf pairs[8], fours[4];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    pairs[i] = vadd(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) fours[i] = vlow_high(pairs[2 * i], pairs[2 * i + 1]);
  return vquarters(vquarters(fours[0], fours[1]), vquarters(fours[2], fours[3]));
}
// The low (high: 1) pairs of lanes of both.
static inline vf vjoin(vf a, vf b, int high) {
  const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
  return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(x, y) : _mm512_unpacklo_pd(x, y));
}
// Rows become columns.
static inline void vturn(vf* v) {
  vf a[16];
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const vf low = _mm512_unpacklo_ps(v[i], v[i + 1]), high = _mm512_unpackhi_ps(v[i], v[i + 1]);
    const vf low2 = _mm512_unpacklo_ps(v[i + 2], v[i + 3]), high2 = _mm512_unpackhi_ps(v[i + 2], v[i + 3]);
    a[i] = vjoin(low, low2, 0);
    a[i + 1] = vjoin(low, low2, 1);
    a[i + 2] = vjoin(high, high2, 0);
    a[i + 3] = vjoin(high, high2, 1);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const vf even = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), odd = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
    const vf even2 = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88), odd2 = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
    v[i] = _mm512_shuffle_f32x4(even, even2, 0x88);
    v[i + 4] = _mm512_shuffle_f32x4(odd, odd2, 0x88);
    v[i + 8] = _mm512_shuffle_f32x4(even, even2, 0xdd);
    v[i + 12] = _mm512_shuffle_f32x4(odd, odd2, 0xdd);
  }
}
