// SPDX-License-Identifier: Apache-2.0
// Activations into column blocks, and the walk over row groups that turns tiles into output rows.

namespace freehold {
namespace {

// ---- activations ------------------------------------------------------------------------------

// One column's group of 32 or 256 values to int8: symmetric, the largest magnitude becomes 127. Of
// every 16 of them the sum.
FH_INLINE float quantize_group(const float* x, int n, int8_t* q, int32_t* sums) {
  vf top{};
  for (int i = 0; i < n; i += W) top = f_max(top, f_abs(f_load(x + i)));
  const float amax = f_hmax(top);
  const float inv = amax > 0.0f ? 127.0f / amax : 0.0f;
  // a clamp on both sides: 127.0f / amax may round up, and -128 has no positive twin
  const vf scale = f_set(inv), hi = f_set(127.0f), lo = f_set(-127.0f);
  for (int i = 0; i < n; i += 16) {
    vi sum{};
    for (int j = 0; j < 16; j += W) {
      const vi v = i_round(f_max(f_min(f_load(x + i + j) * scale, hi), lo));
      i_store_s8(q + i + j, v);
      sum += v;
    }
    sums[i / 16] = i_sum(sum);
  }
  return amax / 127.0f;
}

void quantize_i8(const QuantizeTask& t, int blk) {
  Acts& a = *t.acts;
  const int C = a.block_cols(blk);
  const int64_t first = int64_t(blk) * a.cb;
  const int real = int(first + C <= a.cols ? C : a.cols - first);
  const int per = a.kind == ActKind::I8x256 ? 256 : 32;
  const int64_t groups = a.k / per;
  int8_t* quads = a.quads + first * a.k;
  float* scale = a.scale + first * groups;
  int16_t* sum16 = a.sum16 + first * (a.k / 16);
  int16_t* sum32 = a.sum32 + first * (a.k / 32);
  float* fsum = a.fsum + first * (a.k / 32);
  int wanted[kInitCount], inits = 0;
  for (int id = 0; id < kInitCount; ++id)
    if (t.need_init[id]) wanted[inits++] = id;
  alignas(64) int8_t q[256];
  int32_t sums[16];
  for (int c = 0; c < C; ++c) {
    const float* x = t.x + (first + c) * t.ldx;
    for (int64_t g = 0; g < groups; ++g) {
      float s = 0.0f;
      if (c < real) {
        s = quantize_group(x + g * per, per, q, sums);
      } else {
        std::memset(q, 0, sizeof q);
        std::memset(sums, 0, sizeof sums);
      }
      scale[g * C + c] = s;
      for (int i = 0; i < per / 4; ++i)
        std::memcpy(quads + ((g * (per / 4) + i) * C + c) * 4, q + 4 * i, 4);
      int whole = 0;  // sum of the group
      for (int i = 0; i < per / 32; ++i) {
        const int64_t n = g * (per / 32) + i;  // index of the 32-value sub-block
        const int lo = sums[2 * i], hi = sums[2 * i + 1];
        whole += lo + hi;
        if (t.need_sum16) {
          sum16[(n * C + c) * 2] = int16_t(lo);
          sum16[(n * C + c) * 2 + 1] = int16_t(hi);
        }
        if (t.need_sum32) sum32[((n / 2) * C + c) * 2 + n % 2] = int16_t(lo + hi);
        if (t.need_fsum) fsum[n * C + c] = s * float(lo + hi);
        for (int w = 0; w < inits; ++w) {
          const InitShape shape = kInitShapes[wanted[w]];
          int32_t* init = a.init[wanted[w]] + first * (a.k / shape.span);
          if (shape.span == 16) {
            init[2 * n * C + c] = -shape.offset * lo;
            init[(2 * n + 1) * C + c] = -shape.offset * hi;
          } else if (shape.span == 32) {
            init[n * C + c] = -shape.offset * (lo + hi);
          } else if (i == per / 32 - 1) {
            init[g * C + c] = -shape.offset * whole;
          }
        }
      }
    }
  }
}

void quantize(const QuantizeTask& t, int blk) {
  Acts& a = *t.acts;
  if (a.kind == ActKind::I8x32 || a.kind == ActKind::I8x256) return quantize_i8(t, blk);
  const int C = a.block_cols(blk);
  const int64_t first = int64_t(blk) * a.cb;
  const int64_t pairs = (a.k + 1) / 2;
  for (int c = 0; c < C; ++c) {
    const bool real = first + c < a.cols;
    const float* x = t.x + (first + c) * t.ldx;
    const auto at = [&](int64_t i) { return real && i < a.k ? x[i] : 0.0f; };
    if (a.kind == ActKind::F32) {
      float* out = a.f32 + first * 2 * pairs;
      for (int64_t i = 0; i < 2 * pairs; ++i) out[i * C + c] = at(i);
    } else {
      uint32_t* out = a.bf16 + first * pairs;
      for (int64_t i = 0; i < pairs; ++i)
        out[i * C + c] = uint32_t(bf16_of(at(2 * i))) | uint32_t(bf16_of(at(2 * i + 1))) << 16;
    }
  }
}

// ---- one group of 16 rows times one column block -------------------------------------

// Tile widths: what the register file holds. Wider calls are cut into blocks of equal width, other
// widths padded up. Panels do best with a narrower tile: their weights need no unpacking that more
// columns would share, and fewer sums leave room for the rest.
#if defined(FH_ISA_AVX512)
#define FH_COLS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
constexpr int kCols = 8, kPanelCols = 6, kDirectMax = 40;
#elif defined(FH_ISA_NEON)
#define FH_COLS(X) X(1) X(2) X(4) X(8)
constexpr int kCols = 8, kPanelCols = 8, kDirectMax = 16;
#else
#define FH_COLS(X) X(1) X(2) X(4)
constexpr int kCols = 4, kPanelCols = 4, kDirectMax = 8;
#endif

int pad_cols(int cols) {
#define FH_PAD(N) \
  if (cols <= N) return N;
  FH_COLS(FH_PAD)
#undef FH_PAD
  return kCols;
}

int col_block(int cols) {
  if (cols > kDirectMax) return kPanelCols;
  const int blocks = (cols + kCols - 1) / kCols;
  return pad_cols((cols + blocks - 1) / blocks);
}

template <class F>
void run_tile(const uint8_t* data, int64_t nb, const Acts& a, int blk, float* out) {
  const int C = a.block_cols(blk);
#define FH_RUN(N) \
  if (C == N) return tile<F, N>(data, nb, a, blk, out);
  FH_COLS(FH_RUN)
#undef FH_RUN
}

template <QType T>
void run_float(const uint8_t* words, int64_t k, const Acts& a, int blk, float* out) {
  const int C = a.block_cols(blk);
#define FH_RUN(N) \
  if (C == N) return tile_float<T, N>(words, k, a, blk, out);
  FH_COLS(FH_RUN)
#undef FH_RUN
}

// clang-format off: it finds no layout of this list that it would keep
#define FH_QUANTS(X)                                                                    \
  X(Q8_0) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K)       \
  X(IQ4_NL) X(IQ4_XS) X(MXFP4) X(NVFP4) X(Q1_0) X(Q2_0) X(TQ1_0) X(TQ2_0) X(IQ1_S)      \
  X(IQ1_M) X(IQ2_XXS) X(IQ2_XS) X(IQ2_S) X(IQ3_XXS) X(IQ3_S)
// clang-format on

void direct_tile(const Matrix& m, int64_t g, const Acts& a, int blk, float* out) {
  const uint8_t* data = m.data + g * m.group_bytes;
  switch (m.type) {
    case QType::F32:
      return run_float<QType::F32>(data, m.k, a, blk, out);
    case QType::F16:
      return run_float<QType::F16>(data, m.k, a, blk, out);
    case QType::BF16:
      return run_float<QType::BF16>(data, m.k, a, blk, out);
#define FH_CASE(T) \
  case QType::T:   \
    return run_tile<T>(data, m.blocks, a, blk, out);
      FH_QUANTS(FH_CASE)
#undef FH_CASE
    case QType::kCount:
      return;
  }
}

void fill_panel(const Matrix& m, int64_t g, uint8_t* panel) {
  const uint8_t* data = m.data + g * m.group_bytes;
  switch (m.type) {
#define FH_CASE(T) \
  case QType::T:   \
    return unpack_blocks<T>(data, 0, m.blocks, panel);
    FH_QUANTS(FH_CASE)
#undef FH_CASE
    default:
      return;
  }
}

void panel_tile(const Matrix& m, const uint8_t* panel, const Acts& a, int blk, float* out) {
  switch (m.type) {
#define FH_CASE(T) \
  case QType::T:   \
    return run_tile<PanelOf<T>::type>(panel, m.blocks * T::kSpans, a, blk, out);
    FH_QUANTS(FH_CASE)
#undef FH_CASE
    default:
      return;
  }
}

int64_t panel_bytes(const Matrix& m) {
  switch (m.type) {
#define FH_CASE(T) \
  case QType::T:   \
    return m.blocks * kPanelBlock<T>;
    FH_QUANTS(FH_CASE)
#undef FH_CASE
    default:
      return 0;  // float types have no panel form
  }
}

int direct_max_cols(QType type) {
  switch (type) {
#define FH_CASE(T) \
  case QType::T:   \
    return T::kUnpack ? kCols : kDirectMax;
    FH_QUANTS(FH_CASE)
#undef FH_CASE
    default:
      return kDirectMax;
  }
}

// ---- epilogue ---------------------------------------------------------------------------------

FH_INLINE vf activate(Epilogue e, vf x) {
  if (e == Epilogue::SwigluOai) return x / (f_set(1.0f) + f_exp(f_set(-1.702f) * x));
  if (e == Epilogue::Silu) return x / (f_set(1.0f) + f_exp(-x));
  if (e == Epilogue::GeluTanh) {
    const vf u = f_set(0.7978845608028654f) * (x + f_set(0.044715f) * x * x * x);
    return x - x / (f_exp(u + u) + f_set(1.0f));  // x/2 (1 + tanh u)
  }
  // erf by Abramowitz & Stegun 7.1.26, absolute error below 1.5e-7
  const vf z = f_abs(x) * f_set(0.7071067811865476f);
  const vf t = f_set(1.0f) / f_fma(f_set(0.3275911f), z, f_set(1.0f));
  vf p = f_set(1.061405429f);
  p = f_fma(p, t, f_set(-1.453152027f));
  p = f_fma(p, t, f_set(1.421413741f));
  p = f_fma(p, t, f_set(-0.284496736f));
  p = f_fma(p, t, f_set(0.254829592f));
  const vf tail = p * t * f_exp(-z * z);  // erfc(z)
  const vf cdf =
      f_select((vi)(x < f_set(0.0f)), f_set(0.5f) * tail, f_set(1.0f) - f_set(0.5f) * tail);
  return x * cdf;
}

void store_group(const LinearTask& t, int64_t g, int blk, const float* a, const float* b) {
  const Acts& acts = *t.acts[0];
  const int64_t first = int64_t(blk) * acts.cb;
  const int C = acts.block_cols(blk);
  const int64_t row = g * kGroupRows, n = t.w[0]->n;
  const int rows = int(n - row < kGroupRows ? n - row : kGroupRows);
  alignas(64) float bias[2][16] = {};
  for (int j = 0; j < 2; ++j)
    if (t.bias[j]) std::memcpy(bias[j], t.bias[j] + row, size_t(rows) * sizeof(float));
  for (int c = 0; c < C && first + c < acts.cols; ++c) {
    float* out = t.out + (first + c) * t.ldo + row;
    alignas(64) float part[16];
    for (int h = 0; h < kParts; ++h) {
      vf v = f_load(a + c * 16 + h * W) + f_load(bias[0] + h * W);
      if (b) {
        vf u = f_load(b + c * 16 + h * W) + f_load(bias[1] + h * W);
        // the limit comes first: where x86 compares with what is no number, the second is the
        // result
        v = f_min(f_set(t.limit), v);
        u = f_max(f_set(-t.limit), f_min(f_set(t.limit), u));
        if (t.epilogue == Epilogue::SwigluOai) u = u + f_set(1.0f);
        v = activate(t.epilogue, v) * u;
      }
      f_store(part + h * W, v);
    }
    if (rows == kGroupRows)
      std::memcpy(out, part, sizeof part);
    else
      std::memcpy(out, part, size_t(rows) * sizeof(float));
  }
}

void linear(const LinearTask& t, int64_t g0, int64_t g1, uint8_t* panel, bool use_panel) {
  alignas(64) float tiles[2][kCols * 16];
  const bool gated = t.epilogue != Epilogue::Store;
  const int nblk = t.acts[0]->nblk;
  if (!use_panel) {
    for (int64_t g = g0; g < g1; ++g) {
      for (int blk = 0; blk < nblk; ++blk) {
        direct_tile(*t.w[0], g, *t.acts[0], blk, tiles[0]);
        if (gated) direct_tile(*t.w[1], g, *t.acts[1], blk, tiles[1]);
        store_group(t, g, blk, tiles[0], gated ? tiles[1] : nullptr);
      }
    }
    return;
  }
  // All groups g0..g1 are unpacked at once (the caller sized the panel), then every column block
  // meets all of them while it is in the first-level cache.
  const int64_t bytes0 = panel_bytes(*t.w[0]);
  const int64_t bytes1 = gated ? panel_bytes(*t.w[1]) : 0;
  uint8_t* panel1 = panel + (g1 - g0) * bytes0;
  for (int64_t g = g0; g < g1; ++g) {
    fill_panel(*t.w[0], g, panel + (g - g0) * bytes0);
    if (gated) fill_panel(*t.w[1], g, panel1 + (g - g0) * bytes1);
  }
  for (int blk = 0; blk < nblk; ++blk) {
    for (int64_t g = g0; g < g1; ++g) {
      panel_tile(*t.w[0], panel + (g - g0) * bytes0, *t.acts[0], blk, tiles[0]);
      if (gated) panel_tile(*t.w[1], panel1 + (g - g0) * bytes1, *t.acts[1], blk, tiles[1]);
      store_group(t, g, blk, tiles[0], gated ? tiles[1] : nullptr);
    }
  }
}

// ---- one row back to floats (embedding look-up) -----------------------------------------------

// Lane `l` of one stored block.
template <class F>
FH_INLINE void dequant_block(const uint8_t* bp, const uint8_t* hp, int l, float* out) {
  const auto value = [&](vi quad, int i) {
    const int byte = (uint32_t(quad[l]) >> (8 * i)) & 255;
    return F::kSigned ? float(int8_t(byte)) : float(byte - F::kOffset);
  };
  if constexpr (F::kK) {
    const auto s = F::scales(bp);
    const float d = F::d(bp, hp)[l], dmin = F::dmin(bp)[l];
#pragma GCC unroll 64
    for (int q = 0; q < 64; ++q) {
      const int j = q * 4 / F::kSub;
      float sc = d, low = 0.0f;
      if constexpr (F::kScaled) sc *= float(F::scale(s, bp, j)[l]);
      if constexpr (F::kMin) {
        const uint32_t pair = uint32_t(F::min_pair(s, bp, j / 2)[l]);
        low = dmin * float((pair >> (16 * (j % 2))) & 0xffff);
      }
      const vi quad = F::quad(bp, q);
      for (int i = 0; i < 4; ++i) out[4 * q + i] = sc * value(quad, i) - low;
    }
  } else {
    const float low = F::kMin ? F::min(bp)[l] : 0.0f;
#pragma GCC unroll 8
    for (int q = 0; q < 8 * F::kSpans; ++q) {
      const float d = F::d(bp, hp, q * 4 / F::kSub)[l];
      const vi quad = F::quad(bp, q);
      for (int i = 0; i < 4; ++i) out[4 * q + i] = d * value(quad, i) + low;
    }
  }
}

// Row `lane` of 16 of one block of 256 that was unpacked.
template <class F>
FH_INLINE void dequant_unpacked(const uint8_t* panel, int lane, float* out) {
  using P = typename PanelOf<F>::type;
  const auto at = [&](int word) { return panel + 64 * word + 4 * lane; };
  float d;
  std::memcpy(&d, at(P::kDWord), 4);
  for (int i = 0; i < 256; ++i) {
    int32_t scale = 1;
    if constexpr (F::kScaled) std::memcpy(&scale, at(P::kScaleWord + i / F::kSub), 4);
    out[i] = d * float(scale) * float(at(i / 4)[i % 4] - F::kOffset);
  }
}

template <class F>
void dequant_blocks(const Matrix& m, int64_t row, float* out) {
  constexpr int kBlock = F::kK ? 256 : 32 * F::kSpans;
  const int lane = int(row % kGroupRows), h = lane / W;
  const uint8_t* data = m.data + (row / kGroupRows) * m.group_bytes;
  for (int64_t b = 0; b < m.blocks; ++b, out += kBlock) {
    if constexpr (F::kUnpack) {
      alignas(64) uint8_t panel[kPanelBlock<F>];
      unpack_blocks<F>(data, b, 1, panel);
      dequant_unpacked<F>(panel, lane, out);
    } else {
      dequant_block<F>(block_at<F>(data, b) + h * 4 * W, head_at<F>(data, b) + h * F::kHead * W,
                       lane % W, out);
    }
  }
}

void dequant_row(const Matrix& m, int64_t row, float* out) {
  const int lane = int(row % kGroupRows);
  const uint8_t* words = m.data + (row / kGroupRows) * m.group_bytes;
  switch (m.type) {
    case QType::F32:
      for (int64_t i = 0; i < m.k; ++i) std::memcpy(out + i, words + i * 64 + lane * 4, 4);
      return;
    case QType::F16:
      for (int64_t i = 0; i < m.k; ++i) {
        alignas(64) uint16_t half[W] = {};
        std::memcpy(half, words + i * 32 + lane * 2, 2);
        out[i] = f_load_f16(half)[0];
      }
      return;
    case QType::BF16:
      for (int64_t i = 0; i < m.k; ++i) {
        uint16_t b;
        std::memcpy(&b, words + (i / 2) * 64 + lane * 4 + (i % 2) * 2, 2);
        const uint32_t u = uint32_t(b) << 16;
        std::memcpy(out + i, &u, 4);
      }
      return;
#define FH_CASE(T) \
  case QType::T:   \
    return dequant_blocks<T>(m, row, out);
      FH_QUANTS(FH_CASE)
#undef FH_CASE
    case QType::kCount:
      return;
  }
}

}  // namespace
}  // namespace freehold
