// Where packed weights stand: side by side, so that the system can hold them in huge pages. Called by pack.cpp.
#pragma once

#include <cstddef>

namespace helios {

// What a block of so many bytes takes: whole pages.
size_t mapped_bytes(size_t bytes);

// Zeros, at the start of a page. They stay until they are unmapped. Null: there is no memory.
void* map_zeros(size_t bytes);

// To be called once they are written: takes huge pages for them, where there are any.
void settle(void* block, size_t bytes);

// They go back to the system at once. Takes null.
void unmap(void* block, size_t bytes);

}  // namespace helios
