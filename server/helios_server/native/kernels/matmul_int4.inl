// Products of int4 weights and float32 rows. A weight becomes value * unit + minimum, a float32, in the same way wherever
// it is needed; from there on it is matmul_fma.inl's product: a sum runs over k in order, in one lane.

struct Nibbles {  // a group of a panel
  vf units[2], minima[2];
  const uint8_t* lines;

  void begin(const char* start) {
    const Half *unit = (const Half*)start, *minimum = unit + kPanel;
    for (int j = 0; j < 2; ++j) {
      units[j] = vload(unit + j * kLanes);
      minima[j] = vload(minimum + j * kLanes);
    }
    lines = (const uint8_t*)(minimum + kPanel);
  }
  // The weights of both vectors at k of the group.
  void at(int64_t k, vf& first, vf& second) const {
    vf low, high;
    vnibbles(lines + k * kLanes, low, high);
    first = vfma(low, units[0], minima[0]);
    second = vfma(high, units[1], minima[1]);
  }
};

static inline int64_t group_end(int64_t start, int64_t size) {
  return size - start < HELIOS_GROUP ? size - start : HELIOS_GROUP;
}

// One row, P panels side by side: one panel alone would wait for each of its additions.
template <int P>
static void int4_lone(const HeliosMatrix& m, const Input& in, const Output& out, int64_t panel) {
  vf sums[P][2];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) sums[p][0] = sums[p][1] = vzero();
  const int64_t group_bytes = m.group_bytes(), size = m.depth / HELIOS_GROUP * group_bytes;
  const char* at = (const char*)m.data + panel * size;
  for (int64_t start = 0; start < m.in; start += HELIOS_GROUP, at += group_bytes) {
    Nibbles groups[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) groups[p].begin(at + p * size);
    const int64_t count = group_end(start, m.in);
    for (int64_t k = 0; k < count; ++k) {
      const vf a = vset1(in.x[start + k]);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        vf w0, w1;
        groups[p].at(k, w0, w1);
        sums[p][0] = vfma(a, w0, sums[p][0]);
        sums[p][1] = vfma(a, w1, sums[p][1]);
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) finish(out, 0, panel + p, sums[p][0], sums[p][1]);
}

// wide: [in, panel] of this thread.
static void widen_int4(const HeliosMatrix& m, int64_t panel, float* wide) {
  const int64_t group_bytes = m.group_bytes();
  const char* at = (const char*)m.data + panel * (m.depth / HELIOS_GROUP) * group_bytes;
  for (int64_t start = 0; start < m.in; start += HELIOS_GROUP, at += group_bytes) {
    Nibbles group;
    group.begin(at);
    const int64_t count = group_end(start, m.in);
    for (int64_t k = 0; k < count; ++k) {
      vf w0, w1;
      group.at(k, w0, w1);
      vstore(wide + (start + k) * kPanel, w0);
      vstore(wide + (start + k) * kPanel + kLanes, w1);
    }
  }
}

static void int4_lone_row(const HeliosMatrix& m, const Input& in, const Output& out, int64_t first, int64_t last) {
  constexpr int kSide = kLanes == 8 ? 2 : 4;  // as many as have their units and minima in registers
  int64_t panel = first;
  for (; panel + kSide <= last; panel += kSide) int4_lone<kSide>(m, in, out, panel);
  for (; panel < last; ++panel) int4_lone<1>(m, in, out, panel);
}

static void multiply_int4(const HeliosMatrix& m, const Input& in, int64_t rows, const Output& out, int64_t first,
                          int64_t last, float* wide) {
  if (rows == 1) return int4_lone_row(m, in, out, first, last);
  for (int64_t panel = first; panel < last; ++panel) {
    widen_int4(m, panel, wide);
    fma_rows<float>(wide, m.in, in, rows, out, panel);
  }
}
