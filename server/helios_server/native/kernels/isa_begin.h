// What every instruction set's file includes before it names its target: after that nothing of the standard library may
// come, or its functions would be compiled for a processor that this may not be.
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>
#include <utility>

#include "arena.h"
#include "kernels.h"
#include "team.h"
