// SPDX-License-Identifier: Apache-2.0
// Compiled once per ISA (CMakeLists.txt sets FH_ISA_* and FH_TABLE); exports one function.
#include "../kernels.h"

#include "../codebooks.h"

#include "simd.h"

#include "quants.inl"

#include "codebooks.inl"

#include "gemm.inl"

#include "linear.inl"

#include "kv_cache.inl"

#include "attention.inl"

#include "key_search.inl"

#include "pointwise.inl"

namespace freehold {
namespace {

void rms_norm(const float* x, const float* w, float* out, int64_t n, float eps) {
  vf sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (int j = 0; j < 4; ++j) {
      const vf v = f_load(x + i + j * W);
      sum[j] = f_fma(v, v, sum[j]);
    }
  for (; i + W <= n; i += W) {
    const vf v = f_load(x + i);
    sum[0] = f_fma(v, v, sum[0]);
  }
  float total = f_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; i < n; ++i) total += x[i] * x[i];
  const float scale = 1.0f / __builtin_sqrtf(total / float(n) + eps);
  for (i = 0; i < n; ++i) out[i] = x[i] * scale * w[i];
}

void add(float* x, const float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += y[i];
}

void rope(float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim,
          int64_t half, bool interleaved) {
  for (int64_t h = 0; h < heads; ++h, x += head_dim) {
    const int64_t a = interleaved ? 2 : 1, gap = interleaved ? 1 : half;
    for (int64_t i = 0; i < half; ++i) {
      const float u = x[i * a], v = x[i * a + gap];
      x[i * a] = u * cos[i] - v * sin[i];
      x[i * a + gap] = v * cos[i] + u * sin[i];
    }
  }
}

// The byte dot product on registers alone. Twelve named sums, enough to hide its latency; an array
// would be kept in memory because of the opaque statements that stop the loop from being folded.
double int8_peak(int64_t iters) {
#define FH_SUMS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define FH_ZERO(i) vi s##i{};
#define FH_STEP(i) s##i = i_dot_u(s##i, w, x);
#define FH_KEEP(i) FH_OPAQUE(s##i);
#define FH_ADD(i) total += s##i;
  const vi w = vi{} + 0x01020301, x = vi{} + 0x02010302;
  FH_SUMS(FH_ZERO)
  for (int64_t i = 0; i < iters; ++i) {
    FH_SUMS(FH_STEP)
    FH_SUMS(FH_KEEP)
  }
  vi total{};
  FH_SUMS(FH_ADD)
  volatile int32_t sink = total[0];
  (void)sink;
  return double(iters) * 12 * W * 8.0;
}

uint64_t read_sum(const uint8_t* p, int64_t bytes) {
  vi s[4] = {};
  for (int64_t i = 0; i + 16 * W <= bytes; i += 16 * W)
    for (int j = 0; j < 4; ++j) s[j] ^= i_load(p + i + j * 4 * W);
  const vi t = s[0] ^ s[1] ^ s[2] ^ s[3];
  uint64_t r = 0;
  for (int i = 0; i < W; ++i) r += uint32_t(t[i]);
  return r;
}

const Kernels kTable = {
    FH_NAME,     W,           kHasBF16Dot, kFullU8,     col_block, pad_cols,   direct_max_cols,
    panel_bytes, quantize,    linear,      dequant_row, rms_norm,  layer_norm, activate_row,
    sparse_gate, mix_streams, add,         rope,        write_kv,  attention,  index_scores,
    int8_peak,   read_sum,
};

}  // namespace

const Kernels* FH_TABLE() {
  return &kTable;
}

}  // namespace freehold
