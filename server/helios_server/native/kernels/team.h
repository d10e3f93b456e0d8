// The threads that work on one call. They cut rows or columns among them, never a sum: results do not depend on their
// number.
#pragma once

#include <immintrin.h>
#include <linux/futex.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstdint>

namespace helios {

// Where the threads of a team wait for each other, six times a layer. OpenMP's own barrier sleeps almost at once when the
// process has had more threads than there are cores, and waking takes longer than most phases. Here a thread looks for as
// long as the others may need, and sleeps then: they may be waiting for a core. Who had to sleep looks less long next time.
class Meeting {
 public:
  // Goes on when `size` have come.
  void meet(int size) {
    const int round = __atomic_load_n(&round_, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&come_, 1, __ATOMIC_ACQ_REL) == size) return part(round);
    static thread_local int looks = kMostLooks;
    for (int i = 0; i < looks; ++i) {
      if (__atomic_load_n(&round_, __ATOMIC_ACQUIRE) != round) {
        looks = looks + kFewestLooks < kMostLooks ? looks + kFewestLooks : kMostLooks;
        return;
      }
      _mm_pause();
    }
    looks = looks / 2 > kFewestLooks ? looks / 2 : kFewestLooks;
    sleep(round);
  }

 private:
  static constexpr int kMostLooks = 4000, kFewestLooks = 50;  // some .1 ms, some us: a pause is 40 to 140 cycles

  void part(int round) {
    __atomic_store_n(&come_, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&round_, round + 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&sleepers_, __ATOMIC_SEQ_CST)) syscall(SYS_futex, &round_, FUTEX_WAKE_PRIVATE, INT_MAX);
  }

  void sleep(int round) {
    __atomic_add_fetch(&sleepers_, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&round_, __ATOMIC_SEQ_CST) == round)
      syscall(SYS_futex, &round_, FUTEX_WAIT_PRIVATE, round, nullptr);
    __atomic_sub_fetch(&sleepers_, 1, __ATOMIC_SEQ_CST);
  }

  int come_ = 0, round_ = 0, sleepers_ = 0;
};

struct Team {
  int index, size;
  Meeting* place;

  static Team here(Meeting& place) { return {omp_get_thread_num(), omp_get_num_threads(), &place}; }

  // Goes on when all have come.
  void meet() const {
    if (size > 1) place->meet(size);
  }

  // This thread's share of `count` things: the half-open range [first, last).
  int64_t first(int64_t count) const { return count * index / size; }
  int64_t last(int64_t count) const { return count * (index + 1) / size; }
};

}  // namespace helios
