// One product by the kernel of its layout, on a team's columns.

static Layout layout_of(int format) {
  if (format == HELIOS_INT4) return Layout::kNibbles;
  if (format == HELIOS_INT8) return kLanes == 8 ? Layout::kPairs : Layout::kTileQuads;
  return format == HELIOS_BFLOAT16 && (kTiles || kPairs) ? Layout::kTilePairs : Layout::kColumns;
}

// wide: [in, panel] of this thread. Whoever reads `out` waits for the team.
static void multiply(const HeliosMatrix& m, const Input& in, int64_t rows, const Output& out, Team team, float* wide) {
  const int64_t first = team.first(m.panels), last = team.last(m.panels);
  if (m.layout == Layout::kNibbles) return multiply_int4(m, in, rows, out, first, last, wide);
  if (m.layout == Layout::kColumns) {
    if (m.format == HELIOS_FLOAT16) multiply_fma<Half>(m, in, rows, out, first, last, wide);
    else multiply_fma<Bfloat>(m, in, rows, out, first, last, wide);
    return;
  }
#if HELIOS_TILES || HELIOS_PAIRS
  if (m.layout == Layout::kTilePairs) return multiply_bfloat(m, in, rows, out, first, last);
#endif
#if HELIOS_TILES
  multiply_int8_tiles(m, in, rows, out, first, last);
#else
  multiply_int8(m, in, rows, out, first, last);
#endif
}

// Scratch of products of up to `rows` rows with matrices of up to `depth`.
struct Room {
  static size_t packed(int64_t rows, int64_t depth) { return 2 * input_room(rows) * depth; }
  static size_t wide(int64_t depth) { return Arena::room<float>(depth * kPanel); }
  static size_t bytes(int64_t rows, int64_t depth, int threads) {
    return Arena::room<char>(packed(rows, depth)) + Arena::room<float>(input_room(rows)) + threads * wide(depth);
  }
};

static int matmul(const HeliosMatrix& m, const float* x, int64_t rows, float* to, int threads) {
  static thread_local Arena arena;
  if (!arena.open(Room::bytes(rows, m.depth, threads))) return HELIOS_NO_MEMORY;
  char* packed = arena.take<char>(Room::packed(rows, m.depth));
  const Input in{x, m.in, input_room(rows), packed, arena.take<float>(input_room(rows))};
  float* wide = arena.take<float>(threads * Room::wide(m.depth) / sizeof(float));
  const Output out = output_of(m, to, Put::kStore);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const Team team = Team::here();
    if (converts(m)) {
      convert(m, in, team.first(rows), team.last(rows));
      team.meet();
    }
    multiply(m, in, rows, out, team, wide + team.index * Room::wide(m.depth) / sizeof(float));
  }
  return HELIOS_OK;
}
