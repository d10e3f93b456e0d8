// Norms of queries and keys, their rotation, and the new keys and values into their page. A token at a time, each alone.

// Elements behind a head's key or value: its unit, where they are integers.
template <class T> constexpr int64_t kTail = std::is_same<T, Byte>::value ? sizeof(float) : 0;

// Where keys and values of one layer stand: [page][keys, values][kv_heads][page_tokens][width].
template <class T> struct Slab {
  T* start;
  int64_t kv_heads, page_tokens, width;  // width: elements of a head's key or value, its unit included

  int64_t side() const { return kv_heads * page_tokens * width; }  // elements of a page's keys, or values
  T* keys(int64_t page, int64_t kv_head) const {
    return start + page * 2 * side() + kv_head * page_tokens * width;
  }
  T* key(int64_t slot, int64_t kv_head) const {
    return keys(slot / page_tokens, kv_head) + slot % page_tokens * width;
  }
};

template <class T> static Slab<T> slab_of(const HeliosShape& shape, void* start) {
  return {(T*)start, shape.kv_heads, shape.page_tokens, shape.head_dim + kTail<T>};
}

// One head: [a, b] becomes [a cos - b sin, b cos + a sin], times `scale`.
template <class T>
static void rotate(const float* x, const float* cos, const float* sin, int64_t half, vf scale, T* to) {
  for (int64_t i = 0; i < half; i += kLanes) {
    const int n = (int)(half - i < kLanes ? half - i : kLanes);
    const vf a = vload_upto(x, i, half), b = vload_upto(x + half, i, half);
    const vf c = vload_upto(cos, i, half), s = vload_upto(sin, i, half);
    const vf low = vmul(vsub(vmul(a, c), vmul(b, s)), scale), high = vmul(vfma(b, c, vmul(a, s)), scale);
    if (n == kLanes) {
      vstore(to + i, low);
      vstore(to + half + i, high);
    } else {
      vstore_part(to + i, low, n);
      vstore_part(to + half + i, high, n);
    }
  }
}

template <class T> static void copy_row(const float* x, int64_t size, T* to) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) vstore(to + i, vload(x + i));
  if (i < size) vstore_part(to + i, vload_part(x + i, (int)(size - i)), (int)(size - i));
}

// In units of the largest element's 127th part. A unit is NaN or infinite if the row is not finite, and so is what is
// read of it.
static void copy_row(const float* x, int64_t size, Byte* to) {
  vf top = vzero(), trace = vzero();
  for (int64_t i = 0; i < size; i += kLanes) {
    const vf v = vload_upto(x, i, size);
    top = vmax(top, vabs(v));
    trace = vfma(v, vzero(), trace);
  }
  const float highest = vtop(top), useful = highest < 1e-30f ? 0.f : highest;
  const float unit = useful / 127.f + vsum(trace);
  const vf per_unit = vset1(useful > 0.f ? 127.f / useful : 0.f);
  for (int64_t i = 0; i < size; i += kLanes) {
    const vf v = vmul(vload_upto(x, i, size), per_unit);
    if (i + kLanes <= size) vstore(to + i, v);
    else vstore_part(to + i, v, (int)(size - i));
  }
  memcpy(to + size, &unit, sizeof unit);
}

template <class T>
static void put_key(const float* cos, const float* sin, int64_t half, float* x, T* to) {
  rotate(x, cos, sin, half, vset1(1.f), to);
}
static void put_key(const float* cos, const float* sin, int64_t half, float* x, Byte* to) {
  rotate(x, cos, sin, half, vset1(1.f), x);
  copy_row(x, 2 * half, to);
}

// line: queries, keys, values of token `t`. Queries are rotated in place and carry attention's scale from here on.
template <class T>
static void place_token(const HeliosShape& shape, const HeliosLayer& layer, const HeliosStep& step, const Slab<T>& slab,
                        int64_t t, float* line) {
  const int64_t dim = shape.head_dim, half = dim / 2, at = step.positions[t] * half;
  const float *cos = step.cos + at, *sin = step.sin + at;
  for (int64_t head = 0; head < shape.heads; ++head, line += dim) {
    if (layer.q_norm) norm_row(line, layer.q_norm, shape.eps, dim, line);
    rotate(line, cos, sin, half, vset1(shape.scale), line);
  }
  for (int64_t head = 0; head < shape.kv_heads; ++head, line += dim) {
    if (layer.k_norm) norm_row(line, layer.k_norm, shape.eps, dim, line);
    put_key(cos, sin, half, line, slab.key(step.slots[t], head));
  }
  for (int64_t head = 0; head < shape.kv_heads; ++head, line += dim)
    copy_row(line, dim, slab.key(step.slots[t], head) + slab.side());
}
