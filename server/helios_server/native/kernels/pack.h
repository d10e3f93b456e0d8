// Packs a matrix for one instruction set's kernels, and reads rows of it back. Called by helios_native.cpp, which has
// checked the sizes.
#pragma once

#include "kernels.h"

namespace helios {

struct Source {  // what helios_pack was given
  const void* data;
  int type;
  int64_t in;
  const void *units, *minima;
  const float* bias;
};

int pack(const Kernels& kernels, const Source& source, int64_t out, int format, bool gated, int threads,
         HeliosMatrix** matrix);
void release(HeliosMatrix* matrix);
int64_t bytes_of(const HeliosMatrix& matrix);
void rows_of(const HeliosMatrix& matrix, const int64_t* ids, int64_t count, float* out);

}  // namespace helios
