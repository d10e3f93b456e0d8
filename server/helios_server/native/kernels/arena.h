// Scratch memory of a call: one growing block a calling thread, cut front to back. Kept between calls, since a step
// would otherwise spend its time in page faults.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "matrix.h"

namespace helios {

class Arena {
 public:
  ~Arena() { free(block_); }

  // Starts a call that will take at most `bytes`. False: there is no memory.
  bool open(size_t bytes) {
    taken_ = 0;
    if (bytes <= size_) return true;
    free(block_);
    block_ = nullptr;
    size_ = 0;
    void* block = nullptr;
    if (posix_memalign(&block, kLine, bytes)) return false;
    block_ = static_cast<char*>(block);
    size_ = bytes;
    return true;
  }

  // Room for `count` elements, on a cache line of its own. Its contents are whatever was there.
  template <class T> T* take(int64_t count) {
    T* start = reinterpret_cast<T*>(block_ + taken_);
    taken_ += room<T>(count);
    return start;
  }

  template <class T> static size_t room(int64_t count) { return round_up(count * sizeof(T), kLine); }

 private:
  static constexpr size_t kLine = 64;
  char* block_ = nullptr;
  size_t size_ = 0, taken_ = 0;
};

}  // namespace helios
