// Weights as the kernels read them: narrowed, and put in panels. And rows of them back, as an embedding needs them.
#include <immintrin.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "memory.h"
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

// Visits the groups of a column along k, of all layouts but nibbles: each stands a fixed stride behind the one before (and
// in tiles, after sixteen of them, behind the tile's other half).
template <class Visit> void each_group(const HeliosMatrix& m, int64_t column, Visit visit) {
  const int64_t group = group_of(m.layout), stride = tiled(m.layout) ? 16 * group : m.panel() * group;
  const int64_t half = tiled(m.layout) ? 16 * stride : 0, first = m.offset(column, 0);
  for (int64_t k = 0, place = 0; k < m.in; k += group, ++place) visit(first + place * stride + place / 16 * half, k);
}

template <int kGroup, class T> void place_groups(HeliosMatrix& m, int64_t column, const T* row) {
  T* to = (T*)m.data;
  each_group(m, column, [&](int64_t at, int64_t k) {
    if (m.in - k >= kGroup) memcpy(to + at, row + k, kGroup * sizeof(T));
    else memcpy(to + at, row + k, (m.in - k) * sizeof(T));
  });
}

template <class T> void place_row(HeliosMatrix& m, int64_t column, const T* row) {
  const int64_t group = group_of(m.layout);
  (group == 1 ? place_groups<1, T> : group == 2 ? place_groups<2, T> : place_groups<4, T>)(m, column, row);
}

void widen_halves(const uint16_t* from, int64_t size, float* to) {
  int64_t k = 0;
  for (; k + 8 <= size; k += 8) _mm256_storeu_ps(to + k, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + k))));
  for (; k < size; ++k) to[k] = from_half(from[k]);
}

// True: float16 holds each number that is finite.
bool narrow_to_halves(const float* from, int64_t size, uint16_t* to) {
  int64_t k = 0;
  for (; k + 8 <= size; k += 8)
    _mm_storeu_si128((__m128i*)(to + k), _mm256_cvtps_ph(_mm256_loadu_ps(from + k), _MM_FROUND_TO_NEAREST_INT));
  for (; k < size; ++k) to[k] = to_half(from[k]);
  int beyond = 0;
  for (k = 0; k < size; ++k) beyond |= ((to[k] & 0x7fff) == 0x7c00) & (std::fabs(from[k]) < INFINITY);
  return !beyond;
}

// A row of floats of any width. room: for one.
const float* widened(const Source& source, int64_t row, float* room) {
  if (source.type == HELIOS_FLOAT32) return (const float*)source.data + row * source.in;
  const uint16_t* from = (const uint16_t*)source.data + row * source.in;
  if (source.type == HELIOS_FLOAT16) widen_halves(from, source.in, room);
  else
    for (int64_t k = 0; k < source.in; ++k) room[k] = from_bfloat(from[k]);
  return room;
}

int pack_16(HeliosMatrix& m, const Source& source, int64_t column, int64_t row) {
  if (source.type == m.format) {
    place_row(m, column, (const uint16_t*)source.data + row * m.in);
    return HELIOS_OK;
  }
  static thread_local std::vector<float> wide;
  static thread_local std::vector<uint16_t> narrow;
  wide.resize(m.in);
  narrow.resize(m.in);
  const float* numbers = widened(source, row, wide.data());
  uint16_t* to = narrow.data();
  bool fits = true;
  if (m.format == HELIOS_FLOAT16) fits = narrow_to_halves(numbers, m.in, to);
  else
    for (int64_t k = 0; k < m.in; ++k) to[k] = to_bfloat(numbers[k]);
  place_row(m, column, to);
  return fits ? HELIOS_OK : HELIOS_OUT_OF_RANGE;
}

int pack_8(HeliosMatrix& m, const Source& source, int64_t column, int64_t row) {
  const int8_t* from = (const int8_t*)source.data + row * m.in;
  place_row(m, column, from);
  int32_t sum = 0;
  for (int64_t k = 0; k < m.in; ++k) sum += from[k];
  m.scales[column] = ((const float*)source.units)[row];
  m.sums[column] = sum;
  return HELIOS_OK;
}

// Columns of one vector share bytes with those of the other: this is never cut between threads within a panel.
int pack_4(HeliosMatrix& m, const Source& source, int64_t column, int64_t row) {
  const int64_t groups = m.depth / HELIOS_GROUP, in_panel = column % m.panel();
  const int shift = in_panel < m.lanes ? 0 : 4;
  for (int64_t group = 0; group < groups; ++group) {
    char* start = (char*)m.data + m.group_start(column, group);
    uint16_t *units = (uint16_t*)start, *minima = units + m.panel();
    units[in_panel] = ((const uint16_t*)source.units)[row * groups + group];
    minima[in_panel] = ((const uint16_t*)source.minima)[row * groups + group];
    uint8_t* lines = (uint8_t*)(minima + m.panel()) + in_panel % m.lanes;
    const uint8_t* from = (const uint8_t*)source.data + (row * groups + group) * HELIOS_GROUP / 2;
    for (int k = 0; k < HELIOS_GROUP; ++k) {
      const int value = k < HELIOS_GROUP / 2 ? from[k] & 15 : from[k - HELIOS_GROUP / 2] >> 4;
      lines[k * m.lanes] |= (uint8_t)(value << shift);
    }
  }
  return HELIOS_OK;
}

int pack_panels(HeliosMatrix& m, const Source& source, int threads) {
  const auto pack_row = m.format == HELIOS_INT8 ? pack_8 : m.format == HELIOS_INT4 ? pack_4 : pack_16;
  int worst = HELIOS_OK;
#pragma omp parallel for num_threads(threads) if (threads > 1) reduction(max : worst)
  for (int64_t panel = 0; panel < m.panels; ++panel)
    for (int64_t column = panel * m.panel(); column < (panel + 1) * m.panel(); ++column) {
      const int64_t row = m.source_row(column);
      if (row < 0) continue;  // zeros already
      const int status = pack_row(m, source, column, row);
      if (status > worst) worst = status;
      if (source.bias) m.bias[column] = source.bias[row];
    }
  return worst;
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

float nibble(const HeliosMatrix& m, int64_t column, int64_t k) {
  const int64_t in_panel = column % m.panel(), group = k / HELIOS_GROUP;
  const char* start = (const char*)m.data + m.group_start(column, group);
  const uint16_t *units = (const uint16_t*)start, *minima = units + m.panel();
  const int both = ((const uint8_t*)(minima + m.panel()))[k % HELIOS_GROUP * m.lanes + in_panel % m.lanes];
  const int value = in_panel < m.lanes ? both & 15 : both >> 4;
  return value * from_half(units[in_panel]) + from_half(minima[in_panel]);  // the product is exact
}

template <class T, class Widen> void row_of(const HeliosMatrix& m, int64_t column, Widen widen, float* out) {
  const int64_t group = group_of(m.layout);
  each_group(m, column, [&](int64_t at, int64_t k) {
    for (int64_t i = 0; i < group && k + i < m.in; ++i) out[k + i] = widen(((const T*)m.data)[at + i]);
  });
}

void row_of_nibbles(const HeliosMatrix& m, int64_t column, float* out) {
  for (int64_t k = 0; k < m.in; ++k) out[k] = nibble(m, column, k);
}

}  // namespace

int pack(const Kernels& kernels, const Source& source, int64_t out, int format, bool gated, int threads,
         HeliosMatrix** matrix) {
  HeliosMatrix* m = (HeliosMatrix*)calloc(1, sizeof(HeliosMatrix));
  if (!m) return HELIOS_NO_MEMORY;
  m->format = format;
  m->layout = kernels.layout(format);
  m->lanes = kernels.lanes;
  m->out = out;
  m->in = source.in;
  m->depth = round_up(source.in, depth_step(m->layout));
  m->gated = gated;
  m->columns = gated ? out / 2 : out;
  m->panels = (m->columns + (gated ? m->lanes : m->panel()) - 1) / (gated ? m->lanes : m->panel());
  m->bytes = m->data_bytes();
  const int status = allocate_all(*m, source.bias) ? pack_panels(*m, source, threads) : HELIOS_NO_MEMORY;
  if (status != HELIOS_OK) {
    release(m);
    return status;
  }
  settle(m->data, m->bytes);
  *matrix = m;
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
  return (int64_t)mapped_bytes(m.bytes) + arrays * m.panels * m.panel() * 4;
}

void rows_of(const HeliosMatrix& m, const int64_t* ids, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i, out += m.in) {
    const int64_t column = m.column_of(ids[i]);
    if (m.format == HELIOS_INT4)
      row_of_nibbles(m, column, out);
    else if (m.format == HELIOS_FLOAT16)
      row_of<uint16_t>(m, column, [](uint16_t bits) { return from_half(bits); }, out);
    else if (m.format == HELIOS_BFLOAT16)
      row_of<uint16_t>(m, column, [](uint16_t bits) { return from_bfloat(bits); }, out);
    else
      row_of<int8_t>(m, column, [unit = m.scales[column]](int8_t value) { return value * unit; }, out);
  }
}

}  // namespace helios
#pragma GCC pop_options
