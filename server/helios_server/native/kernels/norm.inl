// RMS norm: out = x / sqrt(mean(x^2) + eps) * weight, of one row.

static void norm_row(const float* x, const float* weight, float eps, int64_t size, float* out) {
  vf even = vzero(), odd = vzero();
  for (int64_t i = 0; i < size; i += 2 * kLanes) {
    const vf a = vload_upto(x, i, size), b = vload_upto(x, i + kLanes, size);
    even = vfma(a, a, even);
    odd = vfma(b, b, odd);
  }
  const vf inverse = vset1(1.f / sqrtf(vsum(vadd(even, odd)) / (float)size + eps));
  for (int64_t i = 0; i < size; i += kLanes)
    vstore_upto(out, i, size, vmul(vmul(vload_upto(x, i, size), inverse), vload_upto(weight, i, size)));
}

static void rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t size, float* out) {
  for (int64_t row = 0; row < rows; ++row) norm_row(x + row * size, weight, eps, size, out + row * size);
}
