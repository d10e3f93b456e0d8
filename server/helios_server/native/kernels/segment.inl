// A segment of decoder layers on the tokens of one step: what helios_run_layers does. The whole team walks through the
// phases of each layer together; in each a thread has rows or columns of its own.

struct SegmentScratch {
  float *normed, *qkv, *mixed, *inner;  // [T, ...]
  char* packed;
  float* units;
  float* wide;       // a thread's
  float* attention;  // a thread's
  Stretch* stretches;
  int64_t stretch_count;
};

struct SegmentSizes {
  int64_t tokens, hidden, width, mixed, inner, depth, attention;
  int threads;

  static SegmentSizes of(const HeliosShape& shape, int64_t tokens, int threads) {
    SegmentSizes z{tokens, shape.hidden, (shape.heads + 2 * shape.kv_heads) * shape.head_dim,
                   shape.heads * shape.head_dim, shape.inner, 0, AttentionScratch::size(shape), threads};
    for (int64_t size : {z.hidden, z.mixed, z.inner}) z.depth = z.depth < size ? size : z.depth;
    z.depth = round_up(z.depth, 64);
    return z;
  }
  size_t bytes() const {
    size_t total = Room::bytes(tokens, depth, threads) + threads * Arena::room<float>(attention);
    for (int64_t size : {hidden, width, mixed, inner}) total += Arena::room<float>(tokens * size);
    return total + Arena::room<Stretch>(tokens);
  }
};

static SegmentScratch take_scratch(const SegmentSizes& z, Arena& arena) {
  SegmentScratch s;
  s.normed = arena.take<float>(z.tokens * z.hidden);
  s.qkv = arena.take<float>(z.tokens * z.width);
  s.mixed = arena.take<float>(z.tokens * z.mixed);
  s.inner = arena.take<float>(z.tokens * z.inner);
  s.packed = arena.take<char>(Room::packed(z.tokens, z.depth));
  s.units = arena.take<float>(input_room(z.tokens));
  s.wide = arena.take<float>(z.threads * Room::wide(z.depth) / sizeof(float));
  s.attention = arena.take<float>(z.threads * Arena::room<float>(z.attention) / sizeof(float));
  s.stretches = arena.take<Stretch>(z.tokens);
  s.stretch_count = 0;
  return s;
}

static void find_stretches(const Segment& segment, SegmentScratch& s) {
  for (int64_t t = 0; t < segment.step.tokens;) {
    const Stretch stretch{(int32_t)t, stretch_at(segment.shape, segment.step, t)};
    s.stretches[s.stretch_count++] = stretch;
    t += stretch.count;
  }
}

class SegmentRun {
 public:
  SegmentRun(const Segment& segment, const SegmentSizes& sizes, const SegmentScratch& scratch, Team team)
      : g_(segment), z_(sizes), s_(scratch), team_(team), first_(team.first(sizes.tokens)),
        last_(team.last(sizes.tokens)) {}

  template <class T> void layer(const HeliosLayer& layer, void* slab) const {
    normed_product(layer.input_norm, *layer.qkv, s_.qkv, Put::kStore);
    place<T>(layer, slab);
    attend_all<T>(slab);
    product(*layer.o, s_.mixed, g_.hidden, Put::kAdd);
    normed_product(layer.post_norm, *layer.gate_up, s_.inner, Put::kGate);
    product(*layer.down, s_.inner, g_.hidden, Put::kAdd);
  }

 private:
  Input input(const float* x, int64_t stride) const { return {x, stride, input_room(z_.tokens), s_.packed, s_.units}; }

  void multiply_all(const HeliosMatrix& m, const Input& in, float* to, Put put) const {
    float* wide = s_.wide + team_.index * Room::wide(z_.depth) / sizeof(float);
    multiply(m, in, z_.tokens, output_of(m, to, put), team_, wide);
    team_.meet();
  }

  void product(const HeliosMatrix& m, const float* x, float* to, Put put) const {
    const Input in = input(x, m.in);
    if (converts(m)) {
      convert(m, in, first_, last_);
      team_.meet();
    }
    multiply_all(m, in, to, put);
  }

  void normed_product(const float* norm, const HeliosMatrix& m, float* to, Put put) const {
    const int64_t size = z_.hidden;
    const Input in = input(s_.normed, size);
    rms_norm(g_.hidden + first_ * size, norm, g_.shape.eps, last_ - first_, size, s_.normed + first_ * size);
    if (converts(m)) convert(m, in, first_, last_);
    team_.meet();
    multiply_all(m, in, to, put);
  }

  template <class T> void place(const HeliosLayer& layer, void* slab) const {
    for (int64_t t = first_; t < last_; ++t)
      place_token(g_.shape, layer, g_.step, slab_of<T>(g_.shape, slab), t, s_.qkv + t * z_.width);
    team_.meet();
  }

  template <class T> void attend_all(void* slab) const {
    const int64_t blocks = s_.stretch_count * g_.shape.kv_heads;
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t next = i + team_.size < blocks ? i + team_.size : i;
      attend(block_at<T>(i, next, slab), s_.qkv, z_.width, s_.mixed);
    }
  }

  // The i-th block, one of a stretch and a key head; next: the one that this thread is likely to have behind it.
  template <class T> Block<T> block_at(int64_t i, int64_t next, void* slab) const {
    const HeliosShape& shape = g_.shape;
    const int64_t kv_heads = shape.kv_heads;
    float* scratch = s_.attention + team_.index * Arena::room<float>(z_.attention) / sizeof(float);
    const Stretch& behind = s_.stretches[next / kv_heads];
    const int64_t pages = (g_.step.contexts[behind.first] + shape.page_tokens - 1) / shape.page_tokens;
    return {shape, g_.step, slab_of<T>(shape, slab), s_.stretches[i / kv_heads], i % kv_heads,
            AttentionScratch::cut(shape, scratch), g_.step.pages + g_.step.table_rows[behind.first] * g_.step.page_width,
            pages, next % kv_heads};
  }

  const Segment& g_;
  const SegmentSizes& z_;
  const SegmentScratch& s_;
  const Team team_;
  const int64_t first_, last_;  // this thread's tokens
};

template <class T> static void run_typed(const Segment& segment, const SegmentRun& run) {
  for (int64_t i = 0; i < segment.count; ++i) run.layer<T>(*segment.layers[i], segment.slabs[i]);
}

static int64_t scratch_bytes(const HeliosShape& shape, int64_t tokens, int threads) {
  return (int64_t)SegmentSizes::of(shape, tokens, threads).bytes();
}

static int run_layers(const Segment& segment) {
  static thread_local Arena arena;
  const SegmentSizes sizes = SegmentSizes::of(segment.shape, segment.step.tokens, segment.threads);
  if (!arena.open(sizes.bytes())) return HELIOS_NO_MEMORY;
  SegmentScratch scratch = take_scratch(sizes, arena);
  find_stretches(segment, scratch);
#pragma omp parallel num_threads(segment.threads) if (segment.threads > 1)
  {
    const SegmentRun run(segment, sizes, scratch, Team::here());
    switch (segment.shape.kv_type) {
      case HELIOS_FLOAT32: run_typed<float>(segment, run); break;
      case HELIOS_FLOAT16: run_typed<Half>(segment, run); break;
      case HELIOS_INT8: run_typed<Byte>(segment, run); break;
      default: run_typed<Bfloat>(segment, run); break;
    }
  }
  return HELIOS_OK;
}
