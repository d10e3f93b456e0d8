// The C interface of the CPU kernels: what `library.py` calls through ctypes, and nothing else does.
//
// Every function returns a HeliosStatus, unless it says otherwise; none throws, prints or keeps a pointer that it was
// given, but for what `helios_pack` copies. A result is bitwise the same for any number of threads.
#pragma once

#include <stdint.h>

#pragma GCC visibility push(default)  // all else stays inside the library

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  HELIOS_OK = 0,
  HELIOS_NO_MEMORY = 1,
  HELIOS_BAD_SHAPE = 2,      // a size that is not positive, an odd head size, matrices that do not fit together
  HELIOS_BAD_FORMAT = 3,     // an unknown format, element type or instruction set
  HELIOS_OUT_OF_RANGE = 4,   // a finite weight that float16 cannot hold
  HELIOS_BAD_POSITION = 6,   // a position beyond the rotary table
  HELIOS_BAD_PAGE = 7,       // a slot, page, context or table row that is outside what was given
} HeliosStatus;

typedef enum { HELIOS_AVX2 = 0, HELIOS_AVX512 = 1, HELIOS_AVX512_BF16 = 2, HELIOS_AMX = 3 } HeliosIsa;
typedef enum { HELIOS_FLOAT32 = 0, HELIOS_FLOAT16 = 1, HELIOS_BFLOAT16 = 2, HELIOS_INT8 = 3, HELIOS_INT4 = 4 } HeliosType;

typedef struct HeliosMatrix HeliosMatrix;  // weights as one instruction set reads them

typedef struct {
  int32_t hidden, heads, kv_heads, head_dim, inner, page_tokens;
  int32_t kv_type;  // HeliosType of keys and values: float32, float16, bfloat16 or int8
  float eps;        // of the norms
  float scale;      // of attention's scores
} HeliosShape;

typedef struct {
  const float *input_norm, *post_norm;  // [hidden]
  const float *q_norm, *k_norm;         // [head_dim], or null
  const HeliosMatrix *qkv, *o, *gate_up, *down;
} HeliosLayer;

typedef struct {
  int64_t tokens;              // T
  const int64_t* positions;    // [T]
  const int64_t* slots;        // [T] page * page_tokens + offset, where a token's key and value go
  const int32_t* table_rows;   // [T] its row of `pages`
  const int32_t* contexts;     // [T] tokens that it attends to, itself included
  const int32_t* pages;        // [page_rows, page_width]
  int64_t page_rows, page_width;
  const float *cos, *sin;      // [rope_rows, head_dim / 2]
  int64_t rope_rows;
} HeliosStep;

// 1 when this processor and its operating system have the instruction set, else 0.
int helios_supports(int isa);

// 1 when this processor is faster with the instruction set than with the one before it, else 0.
int helios_pays(int isa);

// 1 when the compiler of this build had it, else 0.
int helios_built(int isa);

// Packs weight: [out, in] of `type`, row by row, float for a float format and quantised already for the others. gated: the
// first half of the rows is the gate, the second what it lets through, and a product is silu(gate) * up: [rows, out / 2].
// bias: [out] or null. int8: a weight is value * unit, units: [out] float32. int4: groups of HELIOS_GROUP of a row have 16
// bytes each, the k-th element low and the one 16 further high, and a weight is value * unit + minimum; units, minima:
// [out, groups] float16.
#define HELIOS_GROUP 32
int helios_pack(int isa, const void* weight, int type, int64_t out, int64_t in, const void* units, const void* minima,
                const float* bias, int format, int gated, int threads, HeliosMatrix** matrix);
void helios_free(HeliosMatrix* matrix);
int64_t helios_nbytes(const HeliosMatrix* matrix);  // bytes that it keeps

// out[i] = row ids[i] of the weights as packed: [count, in]. An id outside is HELIOS_BAD_SHAPE.
int helios_rows(const HeliosMatrix* matrix, const int64_t* ids, int64_t count, float* out);

// out = x W^T + bias. x: [rows, in]; out: [rows, out] ([rows, out / 2] of a gated matrix).
int helios_matmul(int isa, const HeliosMatrix* matrix, const float* x, int64_t rows, float* out, int threads);

// Runs `count` layers over hidden: [T, hidden], in place. slabs: one a layer, each [slab_pages, 2, kv_heads,
// page_tokens, head_dim]: keys, then values; behind the head_dim bytes of an int8 one stands its unit, a float32. Writes
// the keys and values of the T tokens, then attends in place.
int helios_run_layers(int isa, const HeliosShape* shape, const HeliosLayer* const* layers, void* const* slabs,
                      int64_t slab_pages, int64_t count, float* hidden, const HeliosStep* step, int threads);

// Bytes of scratch memory that a thread keeps once it has run layers of this shape over so many tokens; -1: no such shape.
int64_t helios_scratch(int isa, const HeliosShape* shape, int64_t tokens, int threads);

// out = x / rms(x) * weight. x, out: [rows, size].
int helios_rms_norm(int isa, const float* x, const float* weight, float eps, int64_t rows, int64_t size, float* out);

// Of each row of logits: [rows, vocab]: where the highest stands (the first of equals), the highest, the sum of
// exp(x - highest), and whether all are finite (if not, the others mean nothing).
int helios_choose(int isa, const float* logits, int64_t rows, int64_t vocab, int64_t* best, float* highest, float* total,
                  uint8_t* finite, int threads);

// Ids below `count`, ascending, whose hash under `key` is `least` or more, with the hash. Returns how many there are, of
// which the first `room` are written; -1: no such instruction set.
int64_t helios_loud(int isa, uint64_t key, int64_t count, uint64_t least, int64_t* ids, uint64_t* bits, int64_t room);

#ifdef __cplusplus
}
#endif

#pragma GCC visibility pop
