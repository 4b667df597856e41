// SPDX-License-Identifier: Apache-2.0
// Register tiles: 16 rows (or 2 x 16) by C columns.
//
// Every sum of products inside a scale's reach is an exact integer; floating point enters once per
// 32 or 256 weights, in the same order for every tile shape. A row's result therefore has the same
// bits whatever else is in the batch, in registers or through a panel.

namespace freehold {
namespace {

template <class F> FH_INLINE vi dot(vi acc, vi w, vi a) {
  if constexpr (F::kSigned) return i_dot_s(acc, w, a);
  else return i_dot_u(acc, w, a);
}

struct ColBlock {  // one column block of Acts
  const int8_t* quads;
  const float* scale;
  const int16_t* pairs;
  const float* fsum;
  const int32_t* init;
};

template <class F> ColBlock col_block(const Acts& a, int blk) {
  const int64_t first = int64_t(blk) * a.cb;
  const int64_t per = F::kK ? 256 : 32;
  ColBlock c{};
  c.quads = a.quads + first * a.k;
  c.scale = a.scale + first * (a.k / per);
  if constexpr (F::kK) {
    if constexpr (F::kMin)
      c.pairs = F::kSub == 16 ? a.sum16 + first * (a.k / 16) : a.sum32 + first * (a.k / 32);
    if constexpr (F::kInit != kNoInit) c.init = a.init[F::kInit] + first * (a.k / F::kSub);
  } else {
    if constexpr (F::kMin) c.fsum = a.fsum + first * (a.k / 32);
    if constexpr (F::kInit != kNoInit) c.init = a.init[F::kInit] + first * (a.k / 32);
  }
  return c;
}

// tile: [R * C][16]
template <class F, int R, int C>
void tile_k(const uint8_t* head, int64_t head_stride, const uint8_t* words, int64_t word_stride,
            int64_t nb, const ColBlock& a, float* tile) {
  constexpr int kSubs = 256 / F::kSub, kQuads = F::kSub / 4;
  for (int h = 0; h < kParts; ++h) {
    vf acc[R][C] = {};
    const int8_t* quads = a.quads;
    for (int64_t b = 0; b < nb; ++b) {
      const uint8_t* bp = words + b * F::kWords * 64 + h * 4 * W;
      const uint8_t* hp = head + b * 32 + h * 2 * W;
      vi total[R][C] = {};
      typename F::Scales s[R];
      for (int r = 0; r < R; ++r) s[r] = F::scales(bp + r * word_stride);
#pragma GCC unroll 16
      for (int j = 0; j < kSubs; ++j) {
        vi sum[R][C];
        for (int c = 0; c < C; ++c) {
          vi start{};
          if constexpr (F::kInit != kNoInit) start = i_set(a.init[(b * kSubs + j) * C + c]);
          for (int r = 0; r < R; ++r) sum[r][c] = start;
        }
#pragma GCC unroll 8
        for (int q = 0; q < kQuads; ++q) {
          vi w[R];
          for (int r = 0; r < R; ++r) w[r] = F::quad(bp + r * word_stride, j * kQuads + q);
          for (int c = 0; c < C; ++c) {
            const vi x = i_bcast(quads + ((j * kQuads + q) * C + c) * 4);
            for (int r = 0; r < R; ++r) sum[r][c] = dot<F>(sum[r][c], w[r], x);
          }
        }
        for (int r = 0; r < R; ++r) {
          const vi sc = F::scale(s[r], bp + r * word_stride, j);
          for (int c = 0; c < C; ++c) total[r][c] += i_mul(sum[r][c], sc);
        }
      }
      for (int r = 0; r < R; ++r) {
        const vf d = F::d(bp + r * word_stride, hp + r * head_stride);
        for (int c = 0; c < C; ++c)
          acc[r][c] = f_fma(d * f_set(a.scale[b * C + c]), f_from_i(total[r][c]), acc[r][c]);
      }
      if constexpr (F::kMin) {
        for (int r = 0; r < R; ++r) {
          vi low[C] = {};
#pragma GCC unroll 8
          for (int p = 0; p < kSubs / 2; ++p) {
            const vi m = F::min_pair(s[r], bp + r * word_stride, p);
            for (int c = 0; c < C; ++c)
              low[c] = i_dot16(low[c], m, i_bcast(a.pairs + ((b * (kSubs / 2) + p) * C + c) * 2));
          }
          const vf dmin = -F::dmin(bp + r * word_stride);
          for (int c = 0; c < C; ++c)
            acc[r][c] = f_fma(dmin * f_set(a.scale[b * C + c]), f_from_i(low[c]), acc[r][c]);
        }
      }
      quads += 256 * C;
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) f_store(tile + (r * C + c) * 16 + h * W, acc[r][c]);
  }
}

template <class F, int R, int C>
void tile_32(const uint8_t* head, int64_t head_stride, const uint8_t* words, int64_t word_stride,
             int64_t nb, const ColBlock& a, float* tile) {
  for (int h = 0; h < kParts; ++h) {
    vf acc[R][C] = {};
    const int8_t* quads = a.quads;
    for (int64_t b = 0; b < nb; ++b) {
      const uint8_t* bp = words + b * F::kWords * 64 + h * 4 * W;
      const uint8_t* hp = head + b * 32 + h * 2 * W;
      vi sum[R][C];
      for (int c = 0; c < C; ++c) {
        vi start{};
        if constexpr (F::kInit != kNoInit) start = i_set(a.init[b * C + c]);
        for (int r = 0; r < R; ++r) sum[r][c] = start;
      }
#pragma GCC unroll 8
      for (int q = 0; q < 8; ++q) {
        vi w[R];
        for (int r = 0; r < R; ++r) w[r] = F::quad(bp + r * word_stride, q);
        for (int c = 0; c < C; ++c) {
          const vi x = i_bcast(quads + (q * C + c) * 4);
          for (int r = 0; r < R; ++r) sum[r][c] = dot<F>(sum[r][c], w[r], x);
        }
      }
      for (int r = 0; r < R; ++r) {
        const vf d = F::d(bp + r * word_stride, hp + r * head_stride);
        for (int c = 0; c < C; ++c)
          acc[r][c] = f_fma(d * f_set(a.scale[b * C + c]), f_from_i(sum[r][c]), acc[r][c]);
        if constexpr (F::kMin) {
          const vf m = F::min(bp + r * word_stride);
          for (int c = 0; c < C; ++c) acc[r][c] = f_fma(m, f_set(a.fsum[b * C + c]), acc[r][c]);
        }
      }
      quads += 32 * C;
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) f_store(tile + (r * C + c) * 16 + h * W, acc[r][c]);
  }
}

template <class F, int R, int C>
void tile(const uint8_t* head, int64_t head_stride, const uint8_t* words, int64_t word_stride,
          int64_t nb, const Acts& a, int blk, float* out) {
  const ColBlock cb = col_block<F>(a, blk);
  if constexpr (F::kK) tile_k<F, R, C>(head, head_stride, words, word_stride, nb, cb, out);
  else tile_32<F, R, C>(head, head_stride, words, word_stride, nb, cb, out);
}

// ---- float weights ----------------------------------------------------------------------------

template <QType T, int C>
void tile_float(const uint8_t* words, int64_t k, const Acts& a, int blk, float* out) {
  for (int h = 0; h < kParts; ++h) {
    vf acc[C] = {};
    if constexpr (T == QType::BF16 && kHasBF16Dot) {
#if defined(__AVX512BF16__)
      const uint32_t* x = a.bf16 + int64_t(blk) * a.cb * ((k + 1) / 2);
      for (int64_t i = 0; i < (k + 1) / 2; ++i) {
        const vi w = i_load(words + i * 64 + h * 4 * W);
        for (int c = 0; c < C; ++c) acc[c] = f_dot_bf16(acc[c], w, i_bcast(x + i * C + c));
      }
#endif
    } else if constexpr (T == QType::BF16) {
      const float* x = a.f32 + int64_t(blk) * a.cb * ((k + 1) & ~int64_t(1));
      for (int64_t i = 0; i < (k + 1) / 2; ++i) {
        const vi w = i_load(words + i * 64 + h * 4 * W);
        const vf w0 = f_bits(i_shl<16>(w)), w1 = f_bits(w & (vi{} + int32_t(0xffff0000)));
        for (int c = 0; c < C; ++c) acc[c] = f_fma(w0, f_set(x[2 * i * C + c]), acc[c]);
        for (int c = 0; c < C; ++c) acc[c] = f_fma(w1, f_set(x[(2 * i + 1) * C + c]), acc[c]);
      }
    } else {
      const float* x = a.f32 + int64_t(blk) * a.cb * ((k + 1) & ~int64_t(1));
      for (int64_t i = 0; i < k; ++i) {
        vf w;
        if constexpr (T == QType::F32) w = f_load((const float*)(words + i * 64) + h * W);
        else w = f_load_f16((const uint16_t*)(words + i * 32) + h * W);
        for (int c = 0; c < C; ++c) acc[c] = f_fma(w, f_set(x[i * C + c]), acc[c]);
      }
    }
    for (int c = 0; c < C; ++c) f_store(out + c * 16 + h * W, acc[c]);
  }
}

}  // namespace
}  // namespace freehold
