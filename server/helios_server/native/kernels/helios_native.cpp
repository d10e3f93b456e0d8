// The C interface: checks what it is given, so that no index reads or writes beyond it, and hands on to the kernels.
#include "helios_native.h"

#include "cpu.h"
#include "kernels.h"
#include "pack.h"

namespace {

using helios::Kernels;

const Kernels* kernels_of(int isa) {
  switch (isa) {
    case HELIOS_AVX2: return &helios::kAvx2;
    case HELIOS_AVX512: return &helios::kAvx512;
#if HELIOS_KNOWS_BF16
    case HELIOS_AVX512_BF16: return &helios::kAvx512Bf16;
#endif
    case HELIOS_AMX: return &helios::kAmx;
    default: return nullptr;
  }
}

bool fits(const Kernels& kernels, const HeliosMatrix* m, int64_t out, int64_t in, bool gated) {
  return m && m->lanes == kernels.lanes && m->layout == kernels.layout(m->format) && m->out == out && m->in == in &&
         m->gated == gated;
}

bool sound(const HeliosShape& s) {
  const bool kv_type = s.kv_type == HELIOS_FLOAT32 || s.kv_type == HELIOS_FLOAT16 || s.kv_type == HELIOS_BFLOAT16 ||
                       s.kv_type == HELIOS_INT8;
  return kv_type && s.hidden > 0 && s.heads > 0 && s.kv_heads > 0 && s.head_dim > 0 && s.inner > 0 &&
         s.page_tokens > 0 && s.head_dim % 2 == 0 && s.heads % s.kv_heads == 0;
}

bool sound(const Kernels& kernels, const HeliosShape& s, const HeliosLayer& layer) {
  const int64_t mixed = (int64_t)s.heads * s.head_dim, keys = (int64_t)s.kv_heads * s.head_dim;
  return layer.input_norm && layer.post_norm && fits(kernels, layer.qkv, mixed + 2 * keys, s.hidden, false) &&
         fits(kernels, layer.o, s.hidden, mixed, false) &&
         fits(kernels, layer.gate_up, 2 * (int64_t)s.inner, s.hidden, true) &&
         fits(kernels, layer.down, s.hidden, s.inner, false);
}

// Whether the page table holds pages for `context` tokens in this row, all of them within the slab.
bool pages_sound(const HeliosStep& step, int64_t row, int64_t context, int64_t page_tokens, int64_t slab_pages) {
  const int64_t count = (context + page_tokens - 1) / page_tokens;
  if (row < 0 || row >= step.page_rows || context < 1 || count > step.page_width) return false;
  const int32_t* pages = step.pages + row * step.page_width;
  for (int64_t i = 0; i < count; ++i)
    if (pages[i] < 0 || pages[i] >= slab_pages) return false;
  return true;
}

int check(const HeliosStep& step, int64_t page_tokens, int64_t slab_pages) {
  for (int64_t t = 0; t < step.tokens; ++t) {
    if (step.positions[t] < 0 || step.positions[t] >= step.rope_rows) return HELIOS_BAD_POSITION;
    if (step.slots[t] < 0 || step.slots[t] >= slab_pages * page_tokens) return HELIOS_BAD_PAGE;
    // In a stretch of a prompt the last token's context covers those before it.
    const bool last = t + 1 == step.tokens || step.table_rows[t + 1] != step.table_rows[t] ||
                      step.contexts[t + 1] < step.contexts[t];
    if (step.contexts[t] < 1) return HELIOS_BAD_PAGE;
    if (last && !pages_sound(step, step.table_rows[t], step.contexts[t], page_tokens, slab_pages))
      return HELIOS_BAD_PAGE;
  }
  return HELIOS_OK;
}

}  // namespace

extern "C" {

int helios_supports(int isa) { return helios::supports(isa); }

int helios_pays(int isa) { return helios::pays(isa); }

int helios_built(int isa) { return kernels_of(isa) != nullptr; }

int helios_pack(int isa, const void* weight, int type, int64_t out, int64_t in, const void* units, const void* minima,
                const float* bias, int format, int gated, int threads, HeliosMatrix** matrix) {
  const Kernels* kernels = kernels_of(isa);
  const bool floats = type == HELIOS_FLOAT32 || type == HELIOS_FLOAT16 || type == HELIOS_BFLOAT16;
  const bool to_floats = format == HELIOS_FLOAT16 || format == HELIOS_BFLOAT16;
  const bool in_units = format == type && ((type == HELIOS_INT8 && units) || (type == HELIOS_INT4 && units && minima));
  if (!kernels || !((floats && to_floats) || in_units)) return HELIOS_BAD_FORMAT;
  if (out < 1 || in < 1 || (gated && out % 2) || threads < 1) return HELIOS_BAD_SHAPE;
  return helios::pack(*kernels, {weight, type, in, units, minima, bias}, out, format, gated, threads, matrix);
}

void helios_free(HeliosMatrix* matrix) { helios::release(matrix); }

int64_t helios_nbytes(const HeliosMatrix* matrix) { return helios::bytes_of(*matrix); }

int helios_rows(const HeliosMatrix* matrix, const int64_t* ids, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i)
    if (ids[i] < 0 || ids[i] >= matrix->out) return HELIOS_BAD_SHAPE;
  helios::rows_of(*matrix, ids, count, out);
  return HELIOS_OK;
}

int helios_matmul(int isa, const HeliosMatrix* matrix, const float* x, int64_t rows, float* out, int threads) {
  const Kernels* kernels = kernels_of(isa);
  if (!kernels) return HELIOS_BAD_FORMAT;
  if (rows < 0 || threads < 1 || !fits(*kernels, matrix, matrix->out, matrix->in, matrix->gated))
    return HELIOS_BAD_SHAPE;
  return rows ? kernels->matmul(*matrix, x, rows, out, threads) : HELIOS_OK;
}

int helios_run_layers(int isa, const HeliosShape* shape, const HeliosLayer* const* layers, void* const* slabs,
                      int64_t slab_pages, int64_t count, float* hidden, const HeliosStep* step, int threads) {
  const Kernels* kernels = kernels_of(isa);
  if (!kernels) return HELIOS_BAD_FORMAT;
  if (!sound(*shape) || threads < 1 || step->tokens < 0) return HELIOS_BAD_SHAPE;
  for (int64_t i = 0; i < count; ++i)
    if (!sound(*kernels, *shape, *layers[i])) return HELIOS_BAD_SHAPE;
  if (const int status = check(*step, shape->page_tokens, slab_pages)) return status;
  if (step->tokens == 0 || count == 0) return HELIOS_OK;
  return kernels->run_layers({*shape, layers, slabs, count, hidden, *step, threads});
}

int64_t helios_scratch(int isa, const HeliosShape* shape, int64_t tokens, int threads) {
  const Kernels* kernels = kernels_of(isa);
  if (!kernels || !sound(*shape) || tokens < 0 || threads < 1) return -1;
  return kernels->scratch(*shape, tokens, threads);
}

int helios_rms_norm(int isa, const float* x, const float* weight, float eps, int64_t rows, int64_t size, float* out) {
  const Kernels* kernels = kernels_of(isa);
  if (!kernels) return HELIOS_BAD_FORMAT;
  if (rows < 0 || size < 1) return HELIOS_BAD_SHAPE;
  kernels->rms_norm(x, weight, eps, rows, size, out);
  return HELIOS_OK;
}

int helios_choose(int isa, const float* logits, int64_t rows, int64_t vocab, int64_t* best, float* highest, float* total,
                  uint8_t* finite, int threads) {
  const Kernels* kernels = kernels_of(isa);
  if (!kernels) return HELIOS_BAD_FORMAT;
  if (rows < 0 || vocab < 1 || threads < 1) return HELIOS_BAD_SHAPE;
  kernels->choose(logits, rows, vocab, best, highest, total, finite, threads);
  return HELIOS_OK;
}

int64_t helios_loud(int isa, uint64_t key, int64_t count, uint64_t least, int64_t* ids, uint64_t* bits, int64_t room) {
  const Kernels* kernels = kernels_of(isa);
  return kernels ? kernels->loud(key, count, least, ids, bits, room) : -1;
}

}  // extern "C"
