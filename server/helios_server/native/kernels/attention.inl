// Attention of new tokens to what their pages hold, in place. A query head of a token is a *member* of the block of
// members that share a key head and its loads: the heads of its group, and those of the tokens before and behind it in
// the same prompt. Keys pass in blocks that begin at multiples of kKeys of the sequence, each read page by page; a
// member's order of sums is set by its own context alone, whatever block it is in. What lies beyond a member's
// context is read at most, never used: it may be anything.

constexpr int kKeys = 64;            // keys of a block
constexpr int kMembers = 48;         // as many members share loads, where a prompt has them
constexpr int kTileMembers = 4;      // have their sums in registers together
constexpr int kLine = kKeys + kLanes;  // scores of a member: a vector may be stored beyond the last key
constexpr int kWidenFrom = 8;        // with so many members keys and values are widened to float32 once
template <class T> constexpr int64_t kWidenMembers = std::is_same<T, Byte>::value ? kTileMembers + 1 : kWidenFrom;

// Of one block of members. Sizes in floats.
struct AttentionScratch {
  float *queries, *sums;  // [members, dim] each
  float *scores;          // [members, kLine]
  float *tops, *factors;  // [members]
  float *totals;          // [members, kLanes]
  float *wide;            // [kKeys, dim]
  float *turned;          // [dim, kKeys]

  static int64_t members_of(const HeliosShape& shape) {
    const int64_t group = shape.heads / shape.kv_heads;
    return group > kMembers ? group : kMembers;
  }
  static int64_t dim_of(const HeliosShape& shape) { return round_up(shape.head_dim, kLanes); }
  static int64_t size(const HeliosShape& shape) {
    const int64_t members = members_of(shape), dim = dim_of(shape);
    return members * (2 * dim + kLine + 2 * kLanes + kLanes) + 2 * kKeys * dim;
  }
  static AttentionScratch cut(const HeliosShape& shape, float* from) {
    const int64_t members = members_of(shape), dim = dim_of(shape);
    AttentionScratch s;
    s.queries = from;
    s.sums = s.queries + members * dim;
    s.scores = s.sums + members * dim;
    s.totals = s.scores + members * kLine;
    s.wide = s.totals + members * kLanes;
    s.turned = s.wide + kKeys * dim;
    s.tops = s.turned + kKeys * dim;
    s.factors = s.tops + members;
    return s;
  }
};

// New tokens that follow each other in one sequence: their contexts are context, context + 1, ...
struct Stretch {
  int32_t first, count;
};

template <class T> struct Block {
  const HeliosShape& shape;
  const HeliosStep& step;
  Slab<T> slab;
  Stretch stretch;
  int64_t kv_head;
  AttentionScratch scratch;
  const int32_t* next_pages;  // of the block that this thread is likely to have next
  int64_t next_page_count, next_kv_head;

  int64_t group() const { return shape.heads / shape.kv_heads; }
  int64_t members() const { return stretch.count * group(); }
  int64_t dim() const { return AttentionScratch::dim_of(shape); }
  int64_t context(int64_t member) const { return step.contexts[stretch.first] + member / group(); }
  int64_t last_context() const { return step.contexts[stretch.first] + stretch.count - 1; }
  const int32_t* pages() const { return step.pages + step.table_rows[stretch.first] * step.page_width; }
};

// What turns stored elements into numbers; floats are what they are.
// at: the unit of a row stands there.
template <class T> static inline vf unit_of(const T*) { return vzero(); }
static inline vf unit_of(const Byte* at) {
  float unit;
  memcpy(&unit, at, sizeof unit);
  return vset1(unit);
}
template <class T> static inline vf in_units(vf v, vf, const T*) { return v; }
static inline vf in_units(vf v, vf unit, const Byte*) { return vmul(v, unit); }

// Scores of n <= kLanes keys, which stand `stride` apart, for R members: dot products over `size` elements.
template <class T, int R>
static inline void score_keys(const T* keys, int64_t stride, int64_t size, int n, const float* queries, int64_t dim,
                              float* scores) {
  vf sums[R][kLanes];
  for (int t = 0; t < n; ++t) {
    const T* key = keys + t * stride;
    const vf unit = unit_of(key + size);
    vf lanes[R];
    for (int m = 0; m < R; ++m) lanes[m] = vzero();
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
      const vf k = in_units(vload(key + i), unit, key);
#pragma GCC unroll 4
      for (int m = 0; m < R; ++m) lanes[m] = vfma(k, vload(queries + m * dim + i), lanes[m]);
    }
    if (i < size) {
      const vf k = in_units(vload_part(key + i, (int)(size - i)), unit, key);
      for (int m = 0; m < R; ++m) lanes[m] = vfma(k, vload(queries + m * dim + i), lanes[m]);
    }
    for (int m = 0; m < R; ++m) sums[m][t] = lanes[m];
  }
  for (int m = 0; m < R; ++m) {
    for (int t = n; t < kLanes; ++t) sums[m][t] = vzero();
    vstore(scores + m * kLine, vsums(sums[m]));
  }
}

// The same scores, to the bit, of kTurned keys that stand side by side, an element of all of them at a time: lanes are keys
// here and not elements, so that nothing has to be gathered in the end. What score_keys has in a lane is added up in the
// order of vsums.
constexpr int kVectors = 2, kTurned = kVectors * kLanes;

template <int R> struct Sums {
  vf of[R][kVectors];
};

// Sums stay in registers where the compiler joins these functions, which it has to be told.
#define HELIOS_JOINED __attribute__((always_inline)) static inline

template <int R> HELIOS_JOINED Sums<R> added(Sums<R> a, const Sums<R>& b) {
  for (int m = 0; m < R; ++m)
    for (int v = 0; v < kVectors; ++v) a.of[m][v] = vadd(a.of[m][v], b.of[m][v]);
  return a;
}

// Two lanes at a time, or additions would wait for each other.
template <int R>
HELIOS_JOINED Sums<R> two_lanes(const float* keys, const float* queries, int64_t dim, int one, int other) {
  Sums<R> a, b;
  for (int m = 0; m < R; ++m)
    for (int v = 0; v < kVectors; ++v) a.of[m][v] = b.of[m][v] = vzero();
  for (int64_t i = 0; i < dim; i += kLanes) {
    const float *k = keys + (i + one) * kKeys, *l = keys + (i + other) * kKeys;
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) {
      const vf q = vset1(queries[m * dim + i + one]), r = vset1(queries[m * dim + i + other]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        a.of[m][v] = vfma(vload(k + v * kLanes), q, a.of[m][v]);
        b.of[m][v] = vfma(vload(l + v * kLanes), r, b.of[m][v]);
      }
    }
  }
  return added(a, b);
}

template <int R>
HELIOS_JOINED Sums<R> four_lanes(const float* keys, const float* queries, int64_t dim, int first) {
  const int* at = kPairing;
  return added(two_lanes<R>(keys, queries, dim, first + at[0], first + at[1]),
               two_lanes<R>(keys, queries, dim, first + at[2], first + at[3]));
}

template <int R>
HELIOS_JOINED Sums<R> eight_lanes(const float* keys, const float* queries, int64_t dim, int first) {
  return added(four_lanes<R>(keys, queries, dim, first), four_lanes<R>(keys, queries, dim, first + 4));
}

template <int R> static void score_turned(const float* keys, const float* queries, int64_t dim, float* scores) {
  Sums<R> sums = eight_lanes<R>(keys, queries, dim, 0);
  if constexpr (kLanes == 16) sums = added(sums, eight_lanes<R>(keys, queries, dim, 8));
  for (int m = 0; m < R; ++m)
    for (int v = 0; v < kVectors; ++v) vstore(scores + m * kLine + v * kLanes, sums.of[m][v]);
}

#undef HELIOS_JOINED

// sums += weight of each key * its value, for R members and C vectors of the head, in the order of the keys. left:
// elements of a value from here on.
template <class T, int R, int C>
static inline void add_values(const T* values, int64_t stride, int64_t left, int n, int part, const float* weights,
                              float* sums, int64_t dim) {
  vf acc[R][C];
  for (int m = 0; m < R; ++m)
    for (int c = 0; c < C; ++c) acc[m][c] = vload(sums + m * dim + c * kLanes);
  for (int t = 0; t < n; ++t) {
    const T* value = values + t * stride;
    const vf unit = unit_of(value + left);
    vf v[C];
    for (int c = 0; c < C; ++c)
      v[c] = in_units(c == C - 1 && part ? vload_part(value + c * kLanes, part) : vload(value + c * kLanes), unit, value);
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) {
      const vf weight = vset1(weights[m * kLine + t]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) acc[m][c] = vfma(weight, v[c], acc[m][c]);
    }
  }
  for (int m = 0; m < R; ++m)
    for (int c = 0; c < C; ++c) vstore(sums + m * dim + c * kLanes, acc[m][c]);
}

// The whole head, a few vectors at a time.
template <class T, int R>
static void add_values_of(const T* values, int64_t stride, int64_t size, int n, const float* weights, float* sums,
                          int64_t dim) {
  int64_t i = 0;
  for (; i + 4 * kLanes <= size; i += 4 * kLanes)
    add_values<T, R, 4>(values + i, stride, size - i, n, 0, weights, sums + i, dim);
  for (; i + kLanes <= size; i += kLanes)
    add_values<T, R, 1>(values + i, stride, size - i, n, 0, weights, sums + i, dim);
  if (i < size) add_values<T, R, 1>(values + i, stride, size - i, n, (int)(size - i), weights, sums + i, dim);
}

// f(R as a constant, first member) for tiles of members from `first` on.
template <class F> static inline void for_tiles(int64_t first, int64_t members, F f) {
  int64_t m = first;
  for (; m + 4 <= members; m += 4) f(std::integral_constant<int, 4>(), m);
  switch (members - m) {
    case 3: return f(std::integral_constant<int, 3>(), m);
    case 2: return f(std::integral_constant<int, 2>(), m);
    case 1: return f(std::integral_constant<int, 1>(), m);
  }
}

// Scores of n keys that stand one behind the other, for members from `first` on.
template <class T, class B>
static void score_run(const B& block, const T* keys, int64_t stride, int64_t size, int n, int at, int64_t first) {
  for (int t = 0; t < n; t += kLanes) {
    const int count = n - t < kLanes ? n - t : kLanes;
    for_tiles(first, block.members(), [&](auto height, int64_t m) {
      score_keys<T, decltype(height)::value>(keys + t * stride, stride, size, count,
                                             block.scratch.queries + m * block.dim(), block.dim(),
                                             block.scratch.scores + m * kLine + at + t);
    });
  }
}

// Keys [start, start + n) of the sequence as runs within a page: f(page, offset in it, keys, index in the block).
template <class B, class F> static inline void for_runs(const B& block, int64_t start, int n, F f) {
  const int64_t page_tokens = block.shape.page_tokens;
  for (int at = 0; at < n;) {
    const int64_t offset = (start + at) % page_tokens, left = page_tokens - offset;
    const int count = (int)(left < n - at ? left : n - at);
    f(block.pages()[(start + at) / page_tokens], offset, count, at);
    at += count;
  }
}

// n keys (side 0) or values (side 1) of the block as float32, one behind the other.
template <class T> static void widen(const Block<T>& block, int64_t start, int n, int side) {
  const int64_t size = block.shape.head_dim, dim = block.dim();
  for_runs(block, start, n, [&](int32_t page, int64_t offset, int count, int at) {
    const T* from = block.slab.keys(page, block.kv_head) + side * block.slab.side() + offset * block.slab.width;
    for (int t = 0; t < count; ++t, from += block.slab.width) {
      const vf unit = unit_of(from + size);
      for (int64_t i = 0; i < dim; i += kLanes)
        vstore(block.scratch.wide + (at + t) * dim + i, in_units(vload_upto(from, i, size), unit, from));
    }
  });
}

// The wide keys of the block, side by side.
template <class T> static void turn(const Block<T>& block, int n) {
  const int64_t dim = block.dim();
  for (int t = 0; t < n; t += kLanes)
    for (int64_t i = 0; i < dim; i += kLanes) {
      vf square[kLanes];
      for (int r = 0; r < kLanes; ++r) square[r] = t + r < n ? vload(block.scratch.wide + (t + r) * dim + i) : vzero();
      vturn(square);
      for (int r = 0; r < kLanes; ++r) vstore(block.scratch.turned + (i + r) * kKeys + t, square[r]);
    }
}

// Pages lie anywhere, so nothing fetches them ahead but this: while a page's keys are scored, and later its values summed,
// those of a page further on are asked for, be it of this block or of the next. A fetch may be dropped where the processor
// has not looked up yet where its address lies, a load may not: keys and values are both touched before the keys pass.
constexpr int64_t kPagesAhead = 3;

static inline void touch(const void* at) { (void)*(const volatile char*)at; }

template <class T> static inline const T* keys_ahead(const Block<T>& block, int64_t start) {
  const int64_t tokens = block.shape.page_tokens, own = (block.last_context() + tokens - 1) / tokens;
  const int64_t page = start / tokens + kPagesAhead;
  if (page < own) return block.slab.keys(block.pages()[page], block.kv_head);
  const int64_t beyond = page - own, last = block.next_page_count - 1;
  return block.slab.keys(block.next_pages[beyond < last ? beyond : last], block.next_kv_head);
}

// side: 0 for keys, 1 for values. count: tokens of the page that are read now.
template <class T> static inline void fetch_ahead(const Block<T>& block, int64_t start, int count, int side) {
  const T* keys = keys_ahead(block, start);
  const char* from = (const char*)(keys + side * block.slab.side());
  if (side == 0) {
    touch(keys);
    touch(keys + block.slab.side());
  }
  const int64_t bytes = count * block.slab.width * (int64_t)sizeof(T);
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(from + i, _MM_HINT_T0);
}

template <class T> static void score_block(const Block<T>& block, int64_t start, int n, int64_t first) {
  const int64_t size = block.shape.head_dim;
  if (block.members() >= kWidenMembers<T>) {
    widen(block, start, n, 0);
    turn(block, n);
    for (int t = 0; t < n; t += kTurned)
      for (int64_t m = first; m < block.members(); m += 2) {
        const float *keys = block.scratch.turned + t, *queries = block.scratch.queries + m * block.dim();
        float* scores = block.scratch.scores + m * kLine + t;
        if (m + 1 < block.members()) score_turned<2>(keys, queries, block.dim(), scores);
        else score_turned<1>(keys, queries, block.dim(), scores);
      }
    return;
  }
  const int64_t width = block.slab.width;
  for_runs(block, start, n, [&](int32_t page, int64_t offset, int count, int at) {
    fetch_ahead(block, start + at, count, 0);
    score_run(block, block.slab.keys(page, block.kv_head) + offset * width, width, size, count, at, first);
  });
}

// Scores of n keys become weights, exp(score - highest so far); what was summed before is scaled to the new highest.
static void weigh(float* scores, int n, bool begins, float* top, float* factor, float* totals) {
  for (int t = n; t % kLanes; ++t) scores[t] = -INFINITY;
  vf highest = vset1(begins ? -INFINITY : *top);
  for (int t = 0; t < n; t += kLanes) highest = vmax(highest, vload(scores + t));
  const float now = vtop(highest);
  const vf scale = vexp(vset1(begins ? 0.f : *top - now));
  vf total = vmul(vload(totals), scale);
  for (int t = 0; t < n; t += kLanes) {
    vf weight = vexp(vsub(vload(scores + t), vset1(now)));
    if (n - t < kLanes) weight = vkeep(weight, n - t);
    vstore(scores + t, weight);
    total = vadd(total, weight);
  }
  vstore(totals, total);
  *top = now;
  *factor = vfirst_lane(scale);
}

// Keys of the block of keys that a member attends to; at most n.
template <class T> static inline int keys_of(const Block<T>& block, int64_t member, int64_t start, int n) {
  const int64_t own = block.context(member) - start;
  return (int)(own < n ? own : n);
}

template <class T> static void weigh_block(const Block<T>& block, int64_t start, int n, int64_t first) {
  const AttentionScratch& s = block.scratch;
  for (int64_t m = first; m < block.members(); ++m) {
    weigh(s.scores + m * kLine, keys_of(block, m, start, n), start == 0, s.tops + m, s.factors + m,
          s.totals + m * kLanes);
    if (s.factors[m] == 1.f) continue;
    const vf factor = vset1(s.factors[m]);
    float* sums = s.sums + m * block.dim();
    for (int64_t i = 0; i < block.dim(); i += kLanes) vstore(sums + i, vmul(vload(sums + i), factor));
  }
}

// Members of a tile share the keys that all of them attend to; the rest is each one's own.
template <class V, class T>
static void value_run(const Block<T>& block, const V* values, int64_t stride, int64_t size, int64_t start, int n, int at,
                      int64_t first) {
  const AttentionScratch& s = block.scratch;
  for_tiles(first, block.members(), [&](auto height, int64_t m) {
    constexpr int R = decltype(height)::value;
    const auto here = [&](int64_t member) {  // its keys in this run
      const int own = keys_of(block, member, start, at + n) - at;
      return own < 0 ? 0 : own;
    };
    const int shared = here(m);  // the first member's context is the shortest
    const float* weights = s.scores + m * kLine + at;
    float* sums = s.sums + m * block.dim();
    add_values_of<V, R>(values, stride, size, shared, weights, sums, block.dim());
    for (int i = 1; i < R; ++i)
      if (const int own = here(m + i); own > shared)
        add_values_of<V, 1>(values + shared * stride, stride, size, own - shared, weights + i * kLine + shared,
                            sums + i * block.dim(), block.dim());
  });
}

template <class T> static void value_block(const Block<T>& block, int64_t start, int n, int64_t first) {
  const int64_t size = block.shape.head_dim;
  if (block.members() >= kWidenMembers<T>) {
    widen(block, start, n, 1);
    value_run(block, block.scratch.wide, block.dim(), block.dim(), start, n, 0, first);
    return;
  }
  const int64_t width = block.slab.width;
  for_runs(block, start, n, [&](int32_t page, int64_t offset, int count, int at) {
    fetch_ahead(block, start + at, count, 1);
    const T* values = block.slab.keys(page, block.kv_head) + block.slab.side() + offset * width;
    value_run(block, values, width, size, start, count, at, first);
  });
}

template <class T> static void begin_block(const Block<T>& block, const float* qkv, int64_t width) {
  const int64_t dim = block.dim(), size = block.shape.head_dim;
  for (int64_t m = 0; m < block.members(); ++m) {
    const int64_t token = block.stretch.first + m / block.group();
    const float* query = qkv + token * width + (block.kv_head * block.group() + m % block.group()) * size;
    for (int64_t i = 0; i < dim; i += kLanes) {
      vstore(block.scratch.queries + m * dim + i, vload_upto(query, i, size));
      vstore(block.scratch.sums + m * dim + i, vzero());
    }
    vstore(block.scratch.totals + m * kLanes, vzero());
  }
}

template <class T> static void end_block(const Block<T>& block, float* mixed) {
  const int64_t size = block.shape.head_dim;
  for (int64_t m = 0; m < block.members(); ++m) {
    const int64_t token = block.stretch.first + m / block.group();
    const int64_t head = block.kv_head * block.group() + m % block.group();
    float* to = mixed + (token * block.shape.heads + head) * size;
    const vf inverse = vset1(1.f / vsum(vload(block.scratch.totals + m * kLanes)));
    const float* sums = block.scratch.sums + m * block.dim();
    for (int64_t i = 0; i < size; i += kLanes) vstore_upto(to, i, size, vmul(vload(sums + i), inverse));
  }
}

// qkv: [T, width], queries first; mixed: [T, heads * head_dim].
template <class T> static void attend(const Block<T>& block, const float* qkv, int64_t width, float* mixed) {
  begin_block(block, qkv, width);
  const int64_t context = block.last_context();
  for (int64_t start = 0; start < context; start += kKeys) {
    const int n = (int)(context - start < kKeys ? context - start : kKeys);
    const int64_t done = start - block.context(0) + 1;  // tokens whose context ended before this block
    const int64_t first = done > 0 ? done * block.group() : 0;
    score_block(block, start, n, first);
    weigh_block(block, start, n, first);
    value_block(block, start, n, first);
  }
  end_block(block, mixed);
}

// How many tokens from `first` on may share a block: they follow each other in one sequence.
static int32_t stretch_at(const HeliosShape& shape, const HeliosStep& step, int64_t first) {
  const int64_t most = kMembers / (shape.heads / shape.kv_heads);
  int32_t count = 1;
  while (count < most && first + count < step.tokens && step.table_rows[first + count] == step.table_rows[first] &&
         step.contexts[first + count] == step.contexts[first] + count)
    ++count;
  return count;
}
