// The kernels for AMX tiles (bfloat16 and int8); float16 and all but the products by AVX-512. Under
// HELIOS_EMULATE_AMX the tiles are plain loops, so that this code can be tested where there are none.
#include "isa_begin.h"

#pragma GCC push_options
#ifdef HELIOS_EMULATE_AMX
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,prefer-vector-width=512")
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,prefer-vector-width=512")
#pragma GCC target("amx-tile,amx-int8,amx-bf16")
#endif
namespace helios {
namespace {
#define HELIOS_VECTOR 16
#define HELIOS_TILES 1
#define HELIOS_PAIRS 0
#ifdef HELIOS_EMULATE_AMX
#include "tile_emulation.h"
#endif
#include "simd_avx512.h"
#include "kernels.inl"
}  // namespace

const Kernels kAmx = kTable;
}  // namespace helios
#pragma GCC pop_options
