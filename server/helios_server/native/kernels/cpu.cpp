// Which instruction sets the processor has and the operating system lets a process use.
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu.h"

namespace helios {
namespace {

struct Leaf { unsigned a, b, c, d; };

Leaf leaf_of(unsigned number, unsigned part = 0) {
  Leaf leaf{};
  __get_cpuid_count(number, part, &leaf.a, &leaf.b, &leaf.c, &leaf.d);
  return leaf;
}

constexpr bool all(unsigned word, std::initializer_list<int> bits) {
  for (int bit : bits)
    if (!(word >> bit & 1)) return false;
  return true;
}

// Whether the operating system keeps these parts of the registers when it switches threads.
__attribute__((target("xsave"))) bool kept(unsigned parts) { return (_xgetbv(0) & parts) == parts; }

bool has_avx2() {
  const Leaf first = leaf_of(1);
  return all(first.c, {27, 28, 12, 29}) && kept(0x6) && all(leaf_of(7).b, {5});  // OSXSAVE, AVX, FMA, F16C; AVX2
}

bool has_avx512() {
  const Leaf seventh = leaf_of(7);
  return has_avx2() && kept(0xe6) && all(seventh.b, {16, 17, 30, 31}) && all(seventh.c, {11});  // F, DQ, BW, VL; VNNI
}

bool has_avx512_bf16() { return has_avx512() && all(leaf_of(7, 1).a, {5}); }

// Linux lends the tiles to a process that asks.
bool has_amx() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  if (!has_avx512() || !kept(0x60000) || !all(leaf_of(7).d, {22, 24, 25})) return false;  // BF16, TILE, INT8
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

bool is_intels() {
  const Leaf first = leaf_of(0);
  return first.b == signature_INTEL_ebx && first.d == signature_INTEL_edx && first.c == signature_INTEL_ecx;
}

}  // namespace

// Intel's processors issue one vdpbf16ps in two cycles, and two fused products in each; those that have tiles use those.
bool pays(int isa) { return isa != HELIOS_AVX512_BF16 || !is_intels(); }

bool supports(int isa) {
#ifdef HELIOS_EMULATE_AMX
  if (isa == HELIOS_AMX) return has_avx512();
#endif
  switch (isa) {
    case HELIOS_AVX2: return has_avx2();
    case HELIOS_AVX512: return has_avx512();
    case HELIOS_AVX512_BF16: return has_avx512_bf16();
    case HELIOS_AMX: return has_amx();
    default: return false;
  }
}

}  // namespace helios
