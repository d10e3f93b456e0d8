// The kernels for AVX2, FMA and F16C.
#include "isa_begin.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace helios {
namespace {
#define HELIOS_VECTOR 8
#define HELIOS_TILES 0
#define HELIOS_PAIRS 0
#include "simd_avx2.h"
#include "kernels.inl"
}  // namespace

const Kernels kAvx2 = kTable;
}  // namespace helios
#pragma GCC pop_options
