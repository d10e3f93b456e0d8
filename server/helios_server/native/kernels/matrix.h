// A packed matrix, and where an element of it stands. Shared by what packs (pack.cpp) and what multiplies.
//
// Columns of the product are cut into panels of two vectors. In a gated matrix the first vector of a panel holds gates,
// the second what they let through, so that one panel has both sides of the gate.
#pragma once

#include <cstddef>
#include <cstdint>

#include "helios_native.h"

namespace helios {

struct Half { uint16_t bits; };
struct Bfloat { uint16_t bits; };
struct Byte { int8_t value; };

enum class Layout {
  kColumns,   // 16 bit, FMA:       [panel][k][column]
  kPairs,     // int8, vpmaddwd:    [panel][k / 2][column][2]
  kTilePairs, // bfloat16, AMX:     [panel][k / 32][half][16 pairs][16 columns][2]
  kTileQuads, // int8, VNNI, AMX:   [panel][k / 64][half][16 quads][16 columns][4]
  kNibbles,   // int4, FMA:         [panel][k / 32] a group: units and minima of its columns, float16; [32][lanes] bytes,
              //                    a column of the panel's first vector low, that of the second high
};

// Elements of k that stand side by side, since one instruction adds their products.
constexpr int group_of(Layout layout) {
  return layout == Layout::kColumns || layout == Layout::kNibbles ? 1 : layout == Layout::kTileQuads ? 4 : 2;
}
constexpr bool tiled(Layout layout) { return layout == Layout::kTilePairs || layout == Layout::kTileQuads; }
// k is filled up with zeros to a multiple of this.
constexpr int depth_step(Layout layout) {
  return layout == Layout::kNibbles ? HELIOS_GROUP : group_of(layout) * (tiled(layout) ? 16 : 1);
}

constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

}  // namespace helios

struct HeliosMatrix {
  int format;             // HeliosType: float16, bfloat16, int8 or int4
  helios::Layout layout;
  int lanes;              // floats of a vector of the instruction set that it is packed for
  int64_t out, in;        // as in the checkpoint
  int64_t depth;          // `in` with the zeros that fill it up
  int64_t panels;
  bool gated;
  int64_t columns;        // of a product: out, or out / 2
  size_t bytes;           // of data
  void* data;
  float* scales;          // int8: [panels * panel] a weight's unit, in packed order
  int32_t* sums;          // int8: [panels * panel] of a column's weights
  float* bias;            // [panels * panel] in packed order, or null

  int64_t panel() const { return 2 * lanes; }
  size_t data_bytes() const {
    if (layout == helios::Layout::kNibbles) return (size_t)panels * (depth / HELIOS_GROUP) * group_bytes();
    return (size_t)panels * panel() * depth * (format == HELIOS_INT8 ? 1 : 2);
  }

  // The row of the checkpoint's matrix that a packed column holds; -1: none, it only fills up.
  int64_t source_row(int64_t column) const {
    if (!gated) return column < out ? column : -1;
    const int64_t within = column / panel() * lanes + column % lanes;
    if (within >= columns) return -1;
    return column % panel() < lanes ? within : columns + within;
  }

  // The other way round.
  int64_t column_of(int64_t row) const {
    if (!gated) return row;
    const int64_t within = row % columns;
    return within / lanes * panel() + within % lanes + (row < columns ? 0 : lanes);
  }

  // int4: of a group of a panel; its units, then its minima, then a line of nibbles for each k.
  int64_t group_bytes() const { return 2 * panel() * 2 + HELIOS_GROUP * lanes; }
  int64_t group_start(int64_t column, int64_t group) const {
    return (column / panel() * (depth / HELIOS_GROUP) + group) * group_bytes();
  }

  // Index of an element in data, of all layouts but nibbles.
  int64_t offset(int64_t column, int64_t k) const {
    const int64_t group = helios::group_of(layout), in_panel = column % panel();
    const int64_t start = column / panel() * panel() * depth;
    if (!helios::tiled(layout)) return start + k / group * panel() * group + in_panel * group + k % group;
    const int64_t block = 16 * group, half = 16 * block;  // a tile: 16 rows of 16 columns' groups
    return start + k / block * 2 * half + in_panel / 16 * half + k % block / group * block + in_panel % 16 * group +
           k % group;
  }
};
