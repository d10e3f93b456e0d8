// What a token is chosen by, of one row of logits: the highest and its place, and the sum of exp(x - highest).

// The highest of x, and whether all are finite: a trace of x * 0 is NaN if one is not.
static bool highest_of(const float* x, int64_t size, float* highest) {
  const vf least = vset1(-INFINITY);
  vf top[2] = {least, least}, trace[2] = {vzero(), vzero()};
  int64_t i = 0;
  for (; i + 2 * kLanes <= size; i += 2 * kLanes)
    for (int j = 0; j < 2; ++j) {
      const vf v = vload(x + i + j * kLanes);
      top[j] = vmax(top[j], v);
      trace[j] = vfma(v, vzero(), trace[j]);
    }
  *highest = vtop(vmax(top[0], top[1]));
  float rest = vsum(vadd(trace[0], trace[1]));
  for (; i < size; ++i) {
    if (x[i] > *highest) *highest = x[i];
    rest += x[i] * 0.f;
  }
  return rest == 0.f;
}

static int64_t place_of(const float* x, int64_t size, float value) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes)
    if (const unsigned found = vequal(vload(x + i), vset1(value))) return i + __builtin_ctz(found);
  for (; i < size; ++i)
    if (x[i] == value) return i;
  return 0;
}

static float total_of(const float* x, int64_t size, float highest) {
  const vf top = vset1(highest);
  vf sums[4] = {vzero(), vzero(), vzero(), vzero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= size; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) sums[j] = vadd(sums[j], vexp(vsub(vload(x + i + j * kLanes), top)));
  for (; i < size; i += kLanes) {
    const int n = (int)(size - i < kLanes ? size - i : kLanes);
    sums[0] = vadd(sums[0], vkeep(vexp(vsub(vload_upto(x, i, size), top)), n));
  }
  return vsum(vadd(vadd(sums[0], sums[1]), vadd(sums[2], sums[3])));
}

static void choose(const float* logits, int64_t rows, int64_t vocab, int64_t* best, float* highest, float* total,
                   uint8_t* finite, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows > 1)
  for (int64_t row = 0; row < rows; ++row) {
    const float* x = logits + row * vocab;
    finite[row] = highest_of(x, vocab, &highest[row]);
    best[row] = place_of(x, vocab, highest[row]);
    total[row] = total_of(x, vocab, highest[row]);
  }
}
