// Blocks of whole pages out of reserved addresses, one behind the other. Only a block's pages can be read and written, and
// the system makes a huge page only where all of it can: no block takes more memory than it is counted with. A matrix
// of a small model is smaller than a huge page; layers that are packed one after the other share them.
#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>

namespace helios {
namespace {

constexpr size_t kPage = 4096, kHuge = size_t(2) << 20, kReserve = size_t(1) << 30;
constexpr int kCollapse = 25;  // MADV_COLLAPSE, of Linux 6.1; older systems do the same by and by

size_t rounded(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

// Addresses alone. They may be mapped where others are.
char* reserve(void* at, size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0);
  void* start = mmap(at, bytes, PROT_NONE, flags, -1, 0);
  return start == MAP_FAILED ? nullptr : (char*)start;
}

class Addresses {
 public:
  char* take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto found = fitting(bytes);
    if (found == free_.end() && add(bytes)) found = fitting(bytes);
    if (found == free_.end()) return nullptr;
    char* start = found->first;
    const size_t left = found->second - bytes;
    free_.erase(found);
    if (left) free_[start + bytes] = left;
    return start;
  }

  void give_back(char* start, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto after = free_.lower_bound(start);
    if (after != free_.end() && after->first == start + bytes) {
      bytes += after->second;
      after = free_.erase(after);
    }
    if (after != free_.begin()) {
      const auto before = std::prev(after);
      if (before->first + before->second == start) {
        before->second += bytes;
        return;
      }
    }
    free_[start] = bytes;
  }

 private:
  using Free = std::map<char*, size_t>;  // start and length, no two of them touching

  Free::iterator fitting(size_t bytes) {  // the lowest, so that what is taken stays together
    return std::find_if(free_.begin(), free_.end(), [bytes](const auto& range) { return range.second >= bytes; });
  }

  bool add(size_t bytes) {
    size_t size = rounded(std::max(bytes, kReserve), kHuge);
    char* start = reserve(nullptr, size + kHuge);
    if (!start) start = reserve(nullptr, (size = rounded(bytes, kHuge)) + kHuge);  // the process may have a limit
    if (!start) return false;
    free_[(char*)rounded((size_t)start, kHuge)] = size;
    return true;
  }

  std::mutex mutex_;
  Free free_;
};

Addresses& addresses() {
  static Addresses& all = *new Addresses;  // matrices may be freed while the process ends
  return all;
}

}  // namespace

size_t mapped_bytes(size_t bytes) { return rounded(bytes, kPage); }

void* map_zeros(size_t bytes) {
  const size_t size = mapped_bytes(bytes);
  char* start = addresses().take(size);
  if (!start) return nullptr;
  if (mprotect(start, size, PROT_READ | PROT_WRITE)) {
    addresses().give_back(start, size);
    return nullptr;
  }
  madvise(start, size, MADV_HUGEPAGE);
  return start;
}

// Huge pages within the block came with the first write. Those that it shares with its neighbours could not.
void settle(void* block, size_t bytes) {
  const size_t start = (size_t)block, stop = start + mapped_bytes(bytes);
  const size_t first = start / kHuge * kHuge, last = (stop - 1) / kHuge * kHuge;
  if (first < start) madvise((void*)first, kHuge, kCollapse);
  if (last + kHuge > stop && last != first) madvise((void*)last, kHuge, kCollapse);
}

void unmap(void* block, size_t bytes) {
  if (!block) return;
  const size_t size = mapped_bytes(bytes);
  if (reserve(block, size)) addresses().give_back((char*)block, size);
}

}  // namespace helios
