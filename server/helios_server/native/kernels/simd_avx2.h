// Vectors of 8 floats. Included inside a namespace, by avx2.cpp; simd_avx512.h has the same names.

typedef __m256 vf;
constexpr int kLanes = 8;

static inline vf vzero() { return _mm256_setzero_ps(); }
static inline vf vset1(float x) { return _mm256_set1_ps(x); }
static inline vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
// Where one is NaN, the second is the result.
static inline vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vabs(vf v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), v); }
static inline vf vround(vf v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf vpow2(vf n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
// Bit i: whether lanes i are equal.
static inline unsigned vequal(vf a, vf b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)); }

static inline vf vload(const float* p) { return _mm256_loadu_ps(p); }
static inline vf vload(const Half* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
static inline vf vload(const Bfloat* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
static inline vf vload(const Byte* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p))); }
static inline void vnibbles(const uint8_t* p, vf& low, vf& high) {
  const __m256i both = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
  low = _mm256_cvtepi32_ps(_mm256_and_si256(both, _mm256_set1_epi32(15)));
  high = _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4));
}
static inline void vstore(float* p, vf v) { _mm256_storeu_ps(p, v); }
static inline void vstore(Half* p, vf v) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void vstore(Bfloat* p, vf v) {  // to nearest, ties to even
  __m256i x = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(1));
  x = _mm256_srli_epi32(_mm256_add_epi32(x, _mm256_add_epi32(_mm256_set1_epi32(0x7fff), odd)), 16);
  x = _mm256_permute4x64_epi64(_mm256_packus_epi32(x, x), 0x08);
  _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(x));
}
static inline void vstore(Byte* p, vf v) {  // to nearest, ties to even; beyond int8 the last value
  const __m256i x = _mm256_cvtps_epi32(v);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(words, words));
}

// The first n lanes, 0 <= n <= kLanes; the others are zero, and their memory is not touched.
template <class T> static inline vf vload_part(const T* p, int n) {
  alignas(32) T whole[kLanes] = {};
  memcpy(whole, p, n * sizeof(T));
  return vload(whole);
}
template <class T> static inline void vstore_part(T* p, vf v, int n) {
  alignas(32) T whole[kLanes];
  vstore(whole, v);
  memcpy(p, whole, n * sizeof(T));
}
static inline vf vkeep(vf v, int n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane)));
}

static inline float vfirst_lane(vf v) { return _mm256_cvtss_f32(v); }
static inline float vsum(vf v) {
  __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  a = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}
static inline float vtop(vf v) {
  __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}
// Lane i: the sum of v[i], by a tree that is the same for all: four lanes that stand together in this order, by pairs; then
// fours by pairs.
constexpr int kPairing[4] = {0, 1, 2, 3};
static inline vf vsums(const vf* v) {
  const vf a = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
  const vf b = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
  return vadd(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}
// Rows become columns.
static inline void vturn(vf* v) {
  vf a[8];
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    const vf low = _mm256_unpacklo_ps(v[i], v[i + 1]), high = _mm256_unpackhi_ps(v[i], v[i + 1]);
    const vf low2 = _mm256_unpacklo_ps(v[i + 2], v[i + 3]), high2 = _mm256_unpackhi_ps(v[i + 2], v[i + 3]);
    a[i] = _mm256_shuffle_ps(low, low2, 0x44);
    a[i + 1] = _mm256_shuffle_ps(low, low2, 0xee);
    a[i + 2] = _mm256_shuffle_ps(high, high2, 0x44);
    a[i + 3] = _mm256_shuffle_ps(high, high2, 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
  }
}
