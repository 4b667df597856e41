// SPDX-License-Identifier: Apache-2.0
// Rows in, rows out: layer norm, sparse gates, mixes of streams, and activations of feed-forwards
// without a gate.

namespace freehold {
namespace {

struct Moments {
  float mean, left, variance;  // the mean is `mean + left`
};

// The second pass sums what is left of the mean after its rounding, beside the squares: a mean that
// is large beside the spread costs no precision. The order of the sums depends on n alone.
Moments moments_of(const float* x, int64_t n) {
  vf sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (int j = 0; j < 4; ++j) sum[j] += f_load(x + i + j * W);
  for (; i + W <= n; i += W) sum[0] += f_load(x + i);
  float total = f_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; i < n; ++i) total += x[i];
  const float mean = total / float(n);
  vf square[4] = {}, rest[4] = {};
  for (i = 0; i + 4 * W <= n; i += 4 * W)
    for (int j = 0; j < 4; ++j) {
      const vf v = f_load(x + i + j * W) - f_set(mean);
      square[j] = f_fma(v, v, square[j]);
      rest[j] += v;
    }
  for (; i + W <= n; i += W) {
    const vf v = f_load(x + i) - f_set(mean);
    square[0] = f_fma(v, v, square[0]);
    rest[0] += v;
  }
  total = f_sum((square[0] + square[1]) + (square[2] + square[3]));
  float left = f_sum((rest[0] + rest[1]) + (rest[2] + rest[3]));
  for (; i < n; ++i) {
    const float v = x[i] - mean;
    total += v * v;
    left += v;
  }
  left /= float(n);
  const float variance = total / float(n) - left * left;
  return {mean, left, variance > 0.0f ? variance : 0.0f};
}

void layer_norm(const float* x, const float* w, const float* b, float* out, int64_t n, float eps) {
  const Moments m = moments_of(x, n);
  const float scale = 1.0f / __builtin_sqrtf(m.variance + eps);
  for (int64_t i = 0; i < n; ++i)
    out[i] = (x[i] - m.mean - m.left) * scale * w[i] + (b ? b[i] : 0.0f);
}

void sparse_gate(float* x, int64_t n, float deviations) {
  const Moments m = moments_of(x, n);
  const float above = m.left + deviations * __builtin_sqrtf(m.variance);
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i] - m.mean - above;
    x[i] = v < 0.0f ? 0.0f : v;  // what is not a number stays visible
  }
}

// One row of every stream in, one of every result out.
void mix_streams(const float* const* streams, int64_t count, const float* weights,
                 float* const* outs, int64_t results, int64_t n) {
  for (int64_t r = 0; r < results; ++r) {
    const float* w = weights + r * count;
    float* out = outs[r];
    int64_t i = 0;
    for (; i + W <= n; i += W) {
      vf sum = f_set(w[0]) * f_load(streams[0] + i);
      for (int64_t s = 1; s < count; ++s) sum = f_fma(f_set(w[s]), f_load(streams[s] + i), sum);
      f_store(out + i, sum);
    }
    for (; i < n; ++i) {
      float sum = w[0] * streams[0][i];
      for (int64_t s = 1; s < count; ++s) sum += w[s] * streams[s][i];
      out[i] = sum;
    }
  }
}

// exp(x) - 1 without the cancellation near 0: with x = n ln 2 + r and e^r = 1 + q, it is
// 2^n q + (2^n - 1). Same polynomial as f_exp; for x up to 0, where xIELU needs it.
FH_INLINE vf f_expm1(vf x) {
  x = f_max(x, f_set(-80.0f));
  const vi n = i_round(x * f_set(1.44269504088896341f));
  const vf nf = f_from_i(n);
  vf r = f_fma(nf, f_set(-0.693359375f), x);
  r = f_fma(nf, f_set(2.12194440e-4f), r);
  vf p = f_set(1.9875691500e-4f);
  p = f_fma(p, r, f_set(1.3981999507e-3f));
  p = f_fma(p, r, f_set(8.3334519073e-3f));
  p = f_fma(p, r, f_set(4.1665795894e-2f));
  p = f_fma(p, r, f_set(1.6666665459e-1f));
  p = f_fma(p, r, f_set(5.0000001201e-1f));
  const vf q = f_fma(p, r * r, r);
  const vf power = f_bits(i_bits(f_set(1.0f)) + i_shl<23>(n));
  return f_fma(power, q, power - f_set(1.0f));
}

FH_INLINE vf pointwise(const PointwiseTask& t, vf x) {
  switch (t.kind) {
    case Pointwise::Silu:
      return activate(Epilogue::Silu, x);
    case Pointwise::GeluTanh:
      return activate(Epilogue::GeluTanh, x);
    case Pointwise::Gelu:
      return activate(Epilogue::Gelu, x);
    case Pointwise::Relu2: {
      const vf kept = f_max(x, f_set(0.0f));
      return kept * kept;
    }
    case Pointwise::Xielu: {
      const vf above = f_set(t.alpha_p) * x * x;
      const vf below = (f_expm1(f_min(x, f_set(t.eps))) - x) * f_set(t.alpha_n);
      return f_fma(f_set(t.beta), x, f_select((vi)(x > f_set(0.0f)), above, below));
    }
  }
  return x;
}

void activate_row(const PointwiseTask& t, float* x, int64_t n) {
  int64_t i = 0;
  for (; i + W <= n; i += W) f_store(x + i, pointwise(t, f_load(x + i)));
  if (i == n) return;
  float tail[W] = {};
  std::memcpy(tail, x + i, size_t(n - i) * sizeof(float));
  f_store(tail, pointwise(t, f_load(tail)));
  std::memcpy(x + i, tail, size_t(n - i) * sizeof(float));
}

}  // namespace
}  // namespace freehold
