// The kernels for AVX-512 with VNNI.
#include "isa_begin.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,prefer-vector-width=512")
namespace helios {
namespace {
#define HELIOS_VECTOR 16
#define HELIOS_TILES 0
#define HELIOS_PAIRS 0
#include "simd_avx512.h"
#include "kernels.inl"
}  // namespace

const Kernels kAvx512 = kTable;
}  // namespace helios
#pragma GCC pop_options
