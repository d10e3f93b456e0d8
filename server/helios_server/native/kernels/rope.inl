// Norms of queries and keys, their rotation, and the new keys and values into their page. A token at a time, each alone.

// Where keys and values of one layer stand: [page][keys, values][kv_heads][page_tokens][head_dim].
template <class T> struct Slab {
  T* start;
  int64_t kv_heads, page_tokens, head_dim;

  int64_t side() const { return kv_heads * page_tokens * head_dim; }  // elements of a page's keys, or values
  T* keys(int64_t page, int64_t kv_head) const {
    return start + page * 2 * side() + kv_head * page_tokens * head_dim;
  }
  T* key(int64_t slot, int64_t kv_head) const {
    return keys(slot / page_tokens, kv_head) + slot % page_tokens * head_dim;
  }
};

template <class T> static Slab<T> slab_of(const HeliosShape& shape, void* start) {
  return {(T*)start, shape.kv_heads, shape.page_tokens, shape.head_dim};
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
    rotate(line, cos, sin, half, vset1(1.f), slab.key(step.slots[t], head));
  }
  for (int64_t head = 0; head < shape.kv_heads; ++head, line += dim)
    copy_row(line, dim, slab.key(step.slots[t], head) + slab.side());
}
