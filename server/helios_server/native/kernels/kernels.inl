// All kernels of one instruction set. Included inside a namespace of its own, behind simd_*.h; whoever includes it says
// by HELIOS_TILES whether there are AMX tiles, and by HELIOS_PAIRS whether there are products of pairs of bfloat16.
//
// Everything here computes a row alone, in an order that sizes alone set. Multiplications and additions are fused where
// it says vfma and nowhere else: the build forbids the compiler to do so on its own (-ffp-contract=off), since it would
// do it differently in the code for one row and in that for many.

constexpr bool kTiles = HELIOS_TILES, kPairs = HELIOS_PAIRS;

#include "math.inl"
#include "output.inl"
#include "input.inl"
#include "fetch.inl"
#include "matmul_fma.inl"
#include "matmul_int4.inl"
#if HELIOS_VECTOR == 8
#include "matmul_int8_avx2.inl"
#else
#include "matmul_int8_vnni.inl"
#endif
#include "matmul_int8.inl"
#if HELIOS_TILES
#include "matmul_amx.inl"
#elif HELIOS_PAIRS
#include "matmul_pairs.inl"
#endif
#include "matmul.inl"
#include "norm.inl"
#include "rope.inl"
#include "attention.inl"
#include "segment.inl"
#include "choose.inl"
#include "noise.inl"

static constexpr Kernels kTable = {kLanes, layout_of, matmul, run_layers, scratch_bytes, rms_norm, choose, loud};
