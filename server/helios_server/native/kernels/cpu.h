// Which instruction sets may be used here.
#pragma once

#include <initializer_list>

#include "helios_native.h"

namespace helios {

// For AMX this asks the operating system for the tiles, once and for the whole process.
bool supports(int isa);

// Whether this processor is faster with it than with the one before it.
bool pays(int isa);

}  // namespace helios
