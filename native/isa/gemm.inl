// SPDX-License-Identifier: Apache-2.0
// Register tiles: 16 rows by C columns.
//
// Every sum of products inside a scale's reach is an exact integer; floating point enters once per
// 32 or 256 weights, in the same order for every tile shape. A row's result therefore has the same
// bits whatever else is in the batch, in registers or through a panel.

namespace freehold {
namespace {

template <class F>
FH_INLINE vi dot(vi acc, vi w, const int8_t* a) {  // 4 activations at a
  if constexpr (F::kSigned)
    return i_dot_s_at(acc, w, a);
  else
    return i_dot_u_at(acc, w, a);
}

// Packed weights come straight from memory, in one ascending stream. With few columns the hardware
// prefetchers keep up with it and any help disturbs them (measured: -10 % at one and two columns);
// with more, the arithmetic spaces the reads out so far that they give up. Into the second-level
// cache, because a first level of 32 KiB already holds the activations. A single column block asks
// for what it needs 8 KiB later (4 KiB: 20 % slower at four columns of Q4_K). When several meet the
// same rows in turn, the first two ask for one half each of the rows that follow, so that memory
// never idles (+12 % for Q6_K at 16 columns). The request runs on by one line per word and is never
// computed from the block: that alone made Q6_K 30 % faster at eight columns. The lines of heads
// are not counted, so it falls behind by 64 bytes in two blocks, too little to matter.
struct Ahead {
  const uint8_t* next;
  ptrdiff_t step;  // from one request to the next; 0: the same line again, which is free
};

template <class F>
Ahead look_ahead(const uint8_t* data, int64_t nb, const Acts& a, int blk) {
  if (a.nblk == 1) return {data + 8192, 64};
  if (blk > 1) return {data, 0};
  const int64_t lines = nb * F::kWords + (F::kHead ? nb / kHeadBlocks<F> : 0);
  return {data + (lines + blk * (lines / 2)) * 64, 32};
}

template <class F, int C>
FH_INLINE void prefetch(Ahead& ahead, int i) {  // at word i of a block
  if constexpr (!F::kPanel && C >= 4) {
    if (i < F::kWords) {
      __builtin_prefetch(ahead.next, 0, 2);
      ahead.next += ahead.step;
    }
  }
}

struct ColBlock {  // one column block of Acts
  const int8_t* quads;
  const float* scale;
  const int16_t* pairs;
  const float* fsum;
  const int32_t* init;
};

template <class F>
ColBlock view(const Acts& a, int blk) {
  const int64_t first = int64_t(blk) * a.cb;
  const int64_t per = F::kK ? 256 : 32;
  ColBlock c{};
  c.quads = a.quads + first * a.k;
  c.scale = a.scale + first * (a.k / per);
  if constexpr (F::kK && F::kMin)
    c.pairs = F::kSub == 16 ? a.sum16 + first * (a.k / 16) : a.sum32 + first * (a.k / 32);
  if constexpr (!F::kK && F::kMin) c.fsum = a.fsum + first * (a.k / 32);
  if constexpr (F::kInit != kNoInit)
    c.init = a.init[F::kInit] + first * (a.k / kInitShapes[F::kInit].span);
  return c;
}

constexpr int init_span(int id) {
  return id == kNoInit ? 0 : kInitShapes[id].span;
}

// What follows the integers of a block of 256: floats, in one order for stored blocks and panels.
template <class F, int C>
FH_INLINE void finish_block(const uint8_t* bp, const uint8_t* hp, const typename F::Scales& scales,
                            const ColBlock& a, int64_t b, const vi* total, vf* acc) {
  constexpr int kPairs = 128 / F::kSub;
  const vf d = F::d(bp, hp);
  if constexpr (F::kMin) {
    vi low[C] = {};
#pragma GCC unroll 8
    for (int p = 0; p < kPairs; ++p) {
      const vi m = F::min_pair(scales, bp, p);
      for (int c = 0; c < C; ++c)
        low[c] = i_dot16(low[c], m, i_bcast(a.pairs + ((b * kPairs + p) * C + c) * 2));
    }
    const vf dmin = -F::dmin(bp);
    for (int c = 0; c < C; ++c) {
      const vf block = f_fma(d, f_from_i(total[c]), dmin * f_from_i(low[c]));
      acc[c] = f_fma(block, f_set(a.scale[b * C + c]), acc[c]);
    }
  } else {
    for (int c = 0; c < C; ++c)
      acc[c] = f_fma(d * f_from_i(total[c]), f_set(a.scale[b * C + c]), acc[c]);
  }
}

template <class F, int C>
void tile_k(const uint8_t* data, int64_t nb, const ColBlock& a, Ahead ahead, float* out) {
  constexpr int kSubs = 256 / F::kSub, kQuads = F::kSub / 4;
  constexpr bool kRoom = C <= 3 || (C == 4 && F::kSub == 16);  // of 32 registers
  constexpr int L = W == 16 && kRoom ? F::kLockstep : 1;
  constexpr bool kInitSub = init_span(F::kInit) == F::kSub, kInitBlock = init_span(F::kInit) == 256;
  for (int h = 0; h < kParts; ++h) {
    vf acc[C] = {};
    const int8_t* quads = a.quads;
    for (int64_t b = 0; b < nb; ++b) {
      const uint8_t* bp = block_at<F>(data, b) + h * 4 * W;
      const uint8_t* hp = head_at<F>(data, b) + h * F::kHead * W;
      const auto scales = F::scales(bp);
      vi total[C] = {};
      if constexpr (kInitBlock)
        for (int c = 0; c < C; ++c) total[c] = i_set(a.init[b * C + c]);
#pragma GCC unroll 16
      for (int o = 0; o < kSubs / L; ++o) {
        vi sum[L][C];
#pragma GCC unroll 4
        for (int l = 0; l < L; ++l)
          for (int c = 0; c < C; ++c) {
            if constexpr (kInitSub)
              sum[l][c] = i_set(a.init[(b * kSubs + sub_block<L>(o, l)) * C + c]);
            else
              sum[l][c] = vi{};
          }
#pragma GCC unroll 8
        for (int q = 0; q < kQuads; ++q) {
#pragma GCC unroll 4
          for (int l = 0; l < L; ++l) {
            const int quad = sub_block<L>(o, l) * kQuads + q;
            if (h == 0) prefetch<F, C>(ahead, quad);
            const vi w = F::quad(bp, quad);
            for (int c = 0; c < C; ++c)
              sum[l][c] = dot<F>(sum[l][c], w, quads + (quad * C + c) * 4);
          }
        }
#pragma GCC unroll 4
        for (int l = 0; l < L; ++l) {
          if constexpr (F::kScaled) {
            const vi scale = F::scale(scales, bp, sub_block<L>(o, l));
            for (int c = 0; c < C; ++c) total[c] += i_mul(sum[l][c], scale);
          } else {
            for (int c = 0; c < C; ++c) total[c] += sum[l][c];
          }
        }
      }
      finish_block<F, C>(bp, hp, scales, a, b, total, acc);
      quads += 256 * C;
    }
    for (int c = 0; c < C; ++c) f_store(out + c * 16 + h * W, acc[c]);
  }
}

// The same for blocks that were unpacked: every word is alike, so the sub-blocks are a real loop.
// The result is added to what `out` holds.
template <class P, int C>
__attribute__((noinline)) void add_panel(const uint8_t* panel, int64_t nb, const ColBlock& a,
                                         float* out) {
  constexpr bool kInitSub = init_span(P::kInit) == P::kSub, kInitBlock = init_span(P::kInit) == 256;
  for (int h = 0; h < kParts; ++h) {
    vf acc[C];
    for (int c = 0; c < C; ++c) acc[c] = f_load(out + c * 16 + h * W);
    const int8_t* quads = a.quads;
    for (int64_t b = 0; b < nb; ++b) {
      const uint8_t* bp = block_at<P>(panel, b) + h * 4 * W;
      vi total[C] = {};
      if constexpr (kInitBlock)
        for (int c = 0; c < C; ++c) total[c] = i_set(a.init[b * C + c]);
#pragma GCC unroll 1
      for (int j = 0; j < P::kSubs; ++j) {
        const uint8_t* sub = bp + j * P::kSub * 16;
        vi sum[C];
        for (int c = 0; c < C; ++c) {
          if constexpr (kInitSub)
            sum[c] = i_set(a.init[(b * P::kSubs + j) * C + c]);
          else
            sum[c] = vi{};
        }
#pragma GCC unroll 8
        for (int q = 0; q < P::kSub / 4; ++q) {
          const vi w = word(sub, q);
          for (int c = 0; c < C; ++c) sum[c] = dot<P>(sum[c], w, quads + (q * C + c) * 4);
        }
        quads += P::kSub * C;
        if constexpr (P::kScaled) {
          const vi scale = P::scale({}, bp, j);
          for (int c = 0; c < C; ++c) total[c] += i_mul(sum[c], scale);
        } else {
          for (int c = 0; c < C; ++c) total[c] += sum[c];
        }
      }
      finish_block<P, C>(bp, nullptr, {}, a, b, total, acc);
    }
    for (int c = 0; c < C; ++c) f_store(out + c * 16 + h * W, acc[c]);
  }
}

template <class F, int C>
void tile_32(const uint8_t* data, int64_t nb, const ColBlock& a, Ahead ahead, float* out) {
  constexpr int kSubs = 32 / F::kSub, kQuads = F::kSub / 4;
  for (int h = 0; h < kParts; ++h) {
    vf acc[C] = {};
    const int8_t* quads = a.quads;
    for (int64_t b = 0; b < nb; ++b) {
      const uint8_t* bp = block_at<F>(data, b) + h * 4 * W;
      const uint8_t* hp = head_at<F>(data, b) + h * F::kHead * W;
#pragma GCC unroll 4
      for (int s = 0; s < F::kSpans; ++s) {
        const int64_t g = b * F::kSpans + s;
#pragma GCC unroll 2
        for (int u = s * kSubs; u < (s + 1) * kSubs; ++u) {
          vi sum[C];
          for (int c = 0; c < C; ++c) {
            if constexpr (F::kInit != kNoInit)
              sum[c] = i_set(a.init[(b * F::kSpans * kSubs + u) * C + c]);
            else
              sum[c] = vi{};
          }
#pragma GCC unroll 8
          for (int q = u * kQuads; q < (u + 1) * kQuads; ++q) {
            if (h == 0) prefetch<F, C>(ahead, q);
            const vi w = F::quad(bp, q);
            for (int c = 0; c < C; ++c)
              sum[c] = dot<F>(sum[c], w, quads + ((q - s * 8) * C + c) * 4);
          }
          const vf d = F::d(bp, hp, u);
          for (int c = 0; c < C; ++c)
            acc[c] = f_fma(d * f_set(a.scale[g * C + c]), f_from_i(sum[c]), acc[c]);
        }
        if constexpr (F::kMin) {
          const vf m = F::min(bp);
          for (int c = 0; c < C; ++c) acc[c] = f_fma(m, f_set(a.fsum[g * C + c]), acc[c]);
        }
        quads += 32 * C;
      }
    }
    for (int c = 0; c < C; ++c) f_store(out + c * 16 + h * W, acc[c]);
  }
}

// Types that are unpacked a block at a time, whatever the number of columns: what it takes would
// not fit into the registers beside the sums.
template <class F, int C>
void tile_unpacked(const uint8_t* data, int64_t nb, ColBlock a, float* out) {
  alignas(64) uint8_t panel[kPanelBlock<F>];
  for (int64_t b = 0; b < nb; ++b) {
    unpack_blocks<F>(data, b, 1, panel);
    add_panel<typename PanelOf<F>::type, C>(panel, 1, a, out);
    a.quads += 256 * C;
    a.scale += C;
    a.init += 256 / init_span(F::kInit) * C;
  }
}

template <class F, int C>
void tile(const uint8_t* data, int64_t nb, const Acts& a, int blk, float* out) {
  const ColBlock cb = view<F>(a, blk);
  if constexpr (F::kK && (F::kUnpack || F::kPanel)) std::memset(out, 0, C * 16 * sizeof(float));
  if constexpr (F::kUnpack)
    tile_unpacked<F, C>(data, nb, cb, out);
  else if constexpr (F::kK && F::kPanel)
    add_panel<F, C>(data, nb, cb, out);
  else if constexpr (F::kK)
    tile_k<F, C>(data, nb, cb, look_ahead<F>(data, nb, a, blk), out);
  else
    tile_32<F, C>(data, nb, cb, look_ahead<F>(data, nb, a, blk), out);
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
        if constexpr (T == QType::F32)
          w = f_load((const float*)(words + i * 64) + h * W);
        else
          w = f_load_f16((const uint16_t*)(words + i * 32) + h * W);
        for (int c = 0; c < C; ++c) acc[c] = f_fma(w, f_set(x[i * C + c]), acc[c]);
      }
    }
    for (int c = 0; c < C; ++c) f_store(out + c * 16 + h * W, acc[c]);
  }
}

}  // namespace
}  // namespace freehold
