// Functions of a vector, lane by lane. What is not a number stays none.

// e^x within 2 ulp for -87 <= x <= 88; what is outside takes the value at the bound. A polynomial, as in Cephes.
static inline vf vexp(vf x) {
  x = vmax(vset1(-87.f), vmin(vset1(88.f), x));  // in this order of arguments NaN goes through
  const vf n = vround(vmul(x, vset1(1.44269504f)));
  const vf r = vfma(n, vset1(2.12194440e-4f), vfma(n, vset1(-0.693359375f), x));
  vf p = vset1(1.9875691500e-4f);
  p = vfma(p, r, vset1(1.3981999507e-3f));
  p = vfma(p, r, vset1(8.3334519073e-3f));
  p = vfma(p, r, vset1(4.1665795894e-2f));
  p = vfma(p, r, vset1(1.6666665459e-1f));
  p = vfma(p, r, vset1(5.0000001201e-1f));
  p = vadd(vfma(p, vmul(r, r), r), vset1(1.f));
  return vmul(p, vpow2(n));
}

static inline vf vsilu(vf x) { return vdiv(x, vadd(vset1(1.f), vexp(vsub(vzero(), x)))); }

// Lanes of x[i], x[i + 1], ... below `size`; the others are zero.
template <class T> static inline vf vload_upto(const T* x, int64_t i, int64_t size) {
  if (i + kLanes <= size) return vload(x + i);
  return i < size ? vload_part(x + i, (int)(size - i)) : vzero();
}
static inline void vstore_upto(float* x, int64_t i, int64_t size, vf v) {
  if (i + kLanes <= size) vstore(x + i, v);
  else if (i < size) vstore_part(x + i, v, (int)(size - i));
}
