// Weights as the kernels read them: narrowed, and put in panels. And rows of them back, as an embedding needs them.
#include <immintrin.h>
#include <sys/mman.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "pack.h"

// Each instruction set that there are kernels for has F16C.
#pragma GCC push_options
#pragma GCC target("avx,f16c")
namespace helios {
namespace {

float from_half(uint16_t bits) { return _cvtsh_ss(bits); }
uint16_t to_half(float x) { return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }

float from_bfloat(uint16_t bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float x;
  memcpy(&x, &wide, sizeof x);
  return x;
}

uint16_t to_bfloat(float x) {  // to nearest, ties to even
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (x != x) return (uint16_t)(bits >> 16 | 0x40);  // rounding could make a number of it
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

struct Source {
  const void* data;
  int type;
  int64_t in;

  float at(int64_t row, int64_t k) const {
    const int64_t i = row * in + k;
    if (type == HELIOS_FLOAT32) return ((const float*)data)[i];
    const uint16_t bits = ((const uint16_t*)data)[i];
    return type == HELIOS_FLOAT16 ? from_half(bits) : from_bfloat(bits);
  }
};

int pack_16(HeliosMatrix& m, const Source& source, int64_t column, int64_t row) {
  uint16_t* to = (uint16_t*)m.data;
  int status = HELIOS_OK;
  for (int64_t k = 0; k < m.in; ++k) {
    const float x = source.at(row, k);
    const uint16_t bits = m.format == HELIOS_FLOAT16 ? to_half(x) : to_bfloat(x);
    if (std::isfinite(x) && m.format == HELIOS_FLOAT16 && (bits & 0x7fff) == 0x7c00) status = HELIOS_OUT_OF_RANGE;
    to[m.offset(column, k)] = bits;
  }
  return status;
}

// Symmetric, a unit a row: the largest weight is 127 units.
int pack_8(HeliosMatrix& m, const Source& source, int64_t column, int64_t row) {
  float highest = 0.f;
  for (int64_t k = 0; k < m.in; ++k) {
    const float x = std::fabs(source.at(row, k));
    if (!std::isfinite(x)) return HELIOS_NOT_FINITE;
    if (x > highest) highest = x;
  }
  const float unit = highest / 127.f;
  m.scales[column] = unit;
  int32_t sum = 0;
  for (int64_t k = 0; k < m.in; ++k) {
    const int8_t value = unit > 0.f ? (int8_t)std::nearbyint(source.at(row, k) / unit) : 0;
    ((int8_t*)m.data)[m.offset(column, k)] = value;
    sum += value;
  }
  m.sums[column] = sum;
  return HELIOS_OK;
}

int pack_panels(HeliosMatrix& m, const Source& source, const float* bias, int threads) {
  int worst = HELIOS_OK;
#pragma omp parallel for num_threads(threads) if (threads > 1) reduction(max : worst)
  for (int64_t panel = 0; panel < m.panels; ++panel)
    for (int64_t column = panel * m.panel(); column < (panel + 1) * m.panel(); ++column) {
      const int64_t row = m.source_row(column);
      if (row < 0) continue;  // zeros already
      const int status = (m.format == HELIOS_INT8 ? pack_8 : pack_16)(m, source, column, row);
      if (status > worst) worst = status;
      if (bias) m.bias[column] = bias[row];
    }
  return worst;
}

// Zeros. Large blocks are mapped on their own, so that they go back to the system when a layer is dropped, and begin at
// a huge page; the system may use such pages within the block, which makes reading some percent faster.
constexpr size_t kHuge = size_t(2) << 20, kPage = 4096;

void* map_zeros(size_t bytes) {
  const size_t size = round_up(bytes, kPage), span = size + kHuge;
  char* start = (char*)mmap(nullptr, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  char* aligned = (char*)round_up((int64_t)start, kHuge);
  if (aligned > start) munmap(start, aligned - start);
  munmap(aligned + size, start + span - (aligned + size));
  madvise(aligned, size, MADV_HUGEPAGE);
  return aligned;
}

void unmap(void* block, size_t bytes) {
  if (block) munmap(block, round_up(bytes, kPage));
}

template <class T> bool allocate(T*& to, int64_t count) {
  void* block = nullptr;
  if (posix_memalign(&block, 64, count * sizeof(T))) return false;
  memset(block, 0, count * sizeof(T));
  to = (T*)block;
  return true;
}

bool allocate_all(HeliosMatrix& m, bool bias) {
  const int64_t columns = m.panels * m.panel();
  m.data = map_zeros(m.bytes);
  return m.data && (m.format != HELIOS_INT8 || (allocate(m.scales, columns) && allocate(m.sums, columns))) &&
         (!bias || allocate(m.bias, columns));
}

float element(const HeliosMatrix& m, int64_t column, int64_t k) {
  const int64_t at = m.offset(column, k);
  if (m.format == HELIOS_INT8) return ((const int8_t*)m.data)[at] * m.scales[column];
  const uint16_t bits = ((const uint16_t*)m.data)[at];
  return m.format == HELIOS_FLOAT16 ? from_half(bits) : from_bfloat(bits);
}

}  // namespace

int pack(const Kernels& kernels, const void* weight, int type, int64_t out, int64_t in, const float* bias, int format,
         bool gated, int threads, HeliosMatrix** matrix) {
  HeliosMatrix* m = (HeliosMatrix*)calloc(1, sizeof(HeliosMatrix));
  if (!m) return HELIOS_NO_MEMORY;
  m->format = format;
  m->layout = kernels.layout(format);
  m->lanes = kernels.lanes;
  m->out = out;
  m->in = in;
  m->depth = round_up(in, depth_step(m->layout));
  m->gated = gated;
  m->columns = gated ? out / 2 : out;
  m->panels = (m->columns + (gated ? m->lanes : m->panel()) - 1) / (gated ? m->lanes : m->panel());
  m->bytes = (size_t)m->panels * m->panel() * m->depth * m->element();
  const int status = allocate_all(*m, bias) ? pack_panels(*m, {weight, type, in}, bias, threads) : HELIOS_NO_MEMORY;
  if (status == HELIOS_OK) *matrix = m;
  else release(m);
  return status;
}

void release(HeliosMatrix* m) {
  if (!m) return;
  unmap(m->data, m->bytes);
  free(m->scales);
  free(m->sums);
  free(m->bias);
  free(m);
}

int64_t bytes_of(const HeliosMatrix& m) {
  const int64_t arrays = (m.scales != nullptr) + (m.sums != nullptr) + (m.bias != nullptr);
  return round_up(m.bytes, kPage) + arrays * m.panels * m.panel() * 4;
}

void rows_of(const HeliosMatrix& m, const int64_t* ids, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t column = m.column_of(ids[i]);
    for (int64_t k = 0; k < m.in; ++k) out[i * m.in + k] = element(m, column, k);
  }
}

}  // namespace helios
#pragma GCC pop_options
