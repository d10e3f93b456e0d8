// The kernels of one instruction set, as a table: avx2.cpp, avx512.cpp, avx512_bf16.cpp and amx.cpp each fill one in from the same .inl
// files; helios_native.cpp calls through it.
#pragma once

#include "helios_native.h"
#include "matrix.h"

// Whether the compiler has vdpbf16ps. HELIOS_WITHOUT_BF16: as if it were one that has not.
#if defined(HELIOS_WITHOUT_BF16)
#define HELIOS_KNOWS_BF16 0
#elif defined(__clang__)
#define HELIOS_KNOWS_BF16 (__clang_major__ >= 9)
#else
#define HELIOS_KNOWS_BF16 (__GNUC__ >= 10)
#endif

namespace helios {

struct Segment {  // what helios_run_layers was given
  const HeliosShape& shape;
  const HeliosLayer* const* layers;
  void* const* slabs;
  int64_t count;
  float* hidden;
  const HeliosStep& step;
  int threads;
};

struct Kernels {
  int lanes;
  Layout (*layout)(int format);
  int (*matmul)(const HeliosMatrix& matrix, const float* x, int64_t rows, float* out, int threads);
  int (*run_layers)(const Segment& segment);
  int64_t (*scratch)(const HeliosShape& shape, int64_t tokens, int threads);
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t rows, int64_t size, float* out);
  void (*choose)(const float* logits, int64_t rows, int64_t vocab, int64_t* best, float* highest, float* total,
                 uint8_t* finite, int threads);
  int64_t (*loud)(uint64_t key, int64_t count, uint64_t least, int64_t* ids, uint64_t* bits, int64_t room);
};

extern const Kernels kAvx2, kAvx512, kAvx512Bf16, kAmx;

}  // namespace helios
