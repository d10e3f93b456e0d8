// The kernels for AVX-512 with VNNI and BF16: bfloat16 in pairs, all else as in avx512.cpp. A compiler that does not know
// the instruction leaves this set out of the build.
#include "isa_begin.h"

#if HELIOS_KNOWS_BF16
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,prefer-vector-width=512")
namespace helios {
namespace {
#define HELIOS_VECTOR 16
#define HELIOS_TILES 0
#define HELIOS_PAIRS 1
#include "simd_avx512.h"
#include "kernels.inl"
}  // namespace

const Kernels kAvx512Bf16 = kTable;
}  // namespace helios
#pragma GCC pop_options
#endif
