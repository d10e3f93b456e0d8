// The threads that work on one call. They cut rows or columns among them, never a sum: results do not depend on their
// number.
#pragma once

#include <omp.h>

#include <cstdint>

namespace helios {

struct Team {
  int index, size;

  static Team here() { return {omp_get_thread_num(), omp_get_num_threads()}; }

  // Goes on when all have come.
  void meet() const {
    if (size > 1) {
#pragma omp barrier
    }
  }

  // This thread's share of `count` things: the half-open range [first, last).
  int64_t first(int64_t count) const { return count * index / size; }
  int64_t last(int64_t count) const { return count * (index + 1) / size; }
};

}  // namespace helios
