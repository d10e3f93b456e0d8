// Where a product goes, and what is done to it on its way: bias, then stored, added or sent through the gate. Every
// matrix kernel ends here, so that they differ in the sums alone.

constexpr int kPanel = 2 * kLanes;

enum class Put { kStore, kAdd, kGate };

struct Output {
  float* to;
  int64_t stride, columns;
  Put put;
  const float* bias;  // in packed order, or null
};

static inline Output output_of(const HeliosMatrix& w, float* to, Put put) {
  return {to, w.columns, w.columns, w.gated ? Put::kGate : put, w.bias};
}

// left: columns from here to the end of the line.
static inline void put_vector(float* to, vf v, int64_t left, bool add) {
  if (left >= kLanes) {
    vstore(to, add ? vadd(vload(to), v) : v);
  } else if (left > 0) {
    const int n = (int)left;
    vstore_part(to, add ? vadd(vload_part(to, n), v) : v, n);
  }
}

// a, b: the sums of a panel's first and second vector.
static inline void finish(const Output& out, int64_t row, int64_t panel, vf a, vf b) {
  if (out.bias) {
    a = vadd(a, vload(out.bias + panel * kPanel));
    b = vadd(b, vload(out.bias + panel * kPanel + kLanes));
  }
  float* line = out.to + row * out.stride;
  if (out.put == Put::kGate) {
    const int64_t at = panel * kLanes;
    put_vector(line + at, vmul(vsilu(a), b), out.columns - at, false);
    return;
  }
  const int64_t at = panel * kPanel;
  const bool add = out.put == Put::kAdd;
  put_vector(line + at, a, out.columns - at, add);
  put_vector(line + at + kLanes, b, out.columns - at - kLanes, add);
}
