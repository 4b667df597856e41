// SPDX-License-Identifier: Apache-2.0
// Paged attention, one tile of query rows against all its keys, with a running maximum.
//
// Keys are taken in tiles of 64 at absolute positions 0, 64, 128 ... and every row sums over
// dimensions and over tokens in ascending order, so neither chunking nor the other rows of the
// tile change a row's bits.

namespace freehold {
namespace {

struct KvF32 {
  static constexpr int kBytes = 4;
  static FH_INLINE vf load(const uint8_t* p, int64_t i) { return f_load((const float*)p + i); }
};
struct KvF16 {
  static constexpr int kBytes = 2;
  static FH_INLINE vf load(const uint8_t* p, int64_t i) {
    return f_load_f16((const uint16_t*)p + i);
  }
};
struct KvBF16 {
  static constexpr int kBytes = 2;
  static FH_INLINE vf load(const uint8_t* p, int64_t i) {
    return f_load_bf16((const uint16_t*)p + i);
  }
};

// Where a tile of 16 tokens of one head starts, in elements.
FH_INLINE int64_t tile_index(const KVLayer& kv, int64_t block, int head, int tile) {
  return (head * kv.num_blocks + block) * (kv.block_size / 16) + tile;
}

// ---- writing ------------------------------------------------------------------------------------

template <class Put>
void put_q8(const float* x, int n, Put&& put) {  // blocks of 32: q, f16 scale
  for (int g = 0; g < n / 32; ++g) {
    float amax = 0.0f;
    for (int i = 0; i < 32; ++i) {
      const float a = x[32 * g + i] < 0 ? -x[32 * g + i] : x[32 * g + i];
      amax = a > amax ? a : amax;
    }
    // an infinite or NaN input must not reach the integer conversion
    const bool finite = amax <= 3.0e38f;
    const float d = finite ? amax / 127.0f : 0.0f, inv = d > 0.0f ? 1.0f / d : 0.0f;
    int8_t q[32];
    for (int i = 0; i < 32; ++i) {  // halves go away from zero, as every Q8_0 encoder does
      const float v = x[32 * g + i] * inv;
      q[i] = int8_t(v < 0 ? v - 0.5f : v + 0.5f);
    }
    alignas(64) uint16_t half[W];
    f_store_f16(half, f_set(d));
    put(g, half[0], q);
  }
}

void write_kv(const KVLayer& kv, int64_t slot, const float* k, const float* v) {
  const int64_t block = slot / kv.block_size;
  const int in_block = int(slot % kv.block_size), tile = in_block / 16, lane = in_block % 16;
  const int kd = kv.key_dim, vd = kv.value_dim;
  for (int head = 0; head < kv.num_kv_heads; ++head) {
    const int64_t t = tile_index(kv, block, head, tile);
    const float* kh = k + int64_t(head) * kd;
    const float* vh = v + int64_t(head) * vd;
    const int64_t ki = t * kd * 16 + lane, vi0 = (t * 16 + lane) * vd;
    switch (kv.type) {
      case KVType::F32:
        for (int i = 0; i < kd; ++i) ((float*)kv.k)[ki + 16 * i] = kh[i];
        std::memcpy((float*)kv.v + vi0, vh, size_t(vd) * 4);
        break;
      case KVType::F16: {
        alignas(64) uint16_t half[W];
        for (int i = 0; i < kd; i += W) {
          alignas(64) float in[W] = {};
          const int n = kd - i < W ? kd - i : W;
          std::memcpy(in, kh + i, size_t(n) * 4);
          f_store_f16(half, f_load(in));
          for (int j = 0; j < n; ++j) ((uint16_t*)kv.k)[ki + 16 * (i + j)] = half[j];
        }
        for (int i = 0; i < vd; i += W) {
          alignas(64) float in[W] = {};
          const int n = vd - i < W ? vd - i : W;
          std::memcpy(in, vh + i, size_t(n) * 4);
          f_store_f16(half, f_load(in));
          std::memcpy((uint16_t*)kv.v + vi0 + i, half, size_t(n) * 2);
        }
        break;
      }
      case KVType::BF16:
        for (int i = 0; i < kd; ++i) ((uint16_t*)kv.k)[ki + 16 * i] = bf16_of(kh[i]);
        for (int i = 0; i < vd; ++i) ((uint16_t*)kv.v)[vi0 + i] = bf16_of(vh[i]);
        break;
      case KVType::Q8_0:
        put_q8(kh, kd, [&](int g, uint16_t d, const int8_t* q) {
          kv.k_scale[(t * (kd / 32) + g) * 16 + lane] = d;
          for (int i = 0; i < 32; ++i) ((int8_t*)kv.k)[ki + 16 * (32 * g + i)] = q[i];
        });
        put_q8(vh, vd, [&](int g, uint16_t d, const int8_t* q) {
          kv.v_scale[(t * 16 + lane) * (vd / 32) + g] = d;
          std::memcpy((int8_t*)kv.v + vi0 + 32 * g, q, 32);
        });
        break;
    }
  }
}

// ---- products -----------------------------------------------------------------------------------

// scores[r][0..15] of one 16-token tile: keys at `k` are [kd][16].
template <class T, int R>
FH_INLINE void score_tile(const float* q, int kd, const uint8_t* k, float* scores) {
  for (int h = 0; h < kParts; ++h) {
    vf acc[R] = {};
    for (int d = 0; d < kd; ++d) {
      const vf key = T::load(k, int64_t(d) * 16 + h * W);
      for (int r = 0; r < R; ++r) acc[r] = f_fma(key, f_set(q[r * kd + d]), acc[r]);
    }
    for (int r = 0; r < R; ++r) f_store(scores + r * kAttnKeys + h * W, acc[r]);
  }
}

// acc[r][:] += p[r][t] * v[t][:] for `tokens` tokens; values at `v` are [tokens][vd].
template <class T, int R>
FH_INLINE void value_tile(const float* p, int tokens, const uint8_t* v, int vd, float* acc) {
  constexpr int N = W >= 8 ? 4 : 2;  // native vectors of the value kept in registers
  int d = 0;
  for (; d + N * W <= vd; d += N * W) {
    vf a[R][N];
    for (int r = 0; r < R; ++r)
      for (int i = 0; i < N; ++i) a[r][i] = f_load(acc + r * vd + d + i * W);
    for (int t = 0; t < tokens; ++t) {
      vf x[N];
      for (int i = 0; i < N; ++i) x[i] = T::load(v, int64_t(t) * vd + d + i * W);
      for (int r = 0; r < R; ++r) {
        const vf w = f_set(p[r * kAttnKeys + t]);
        for (int i = 0; i < N; ++i) a[r][i] = f_fma(w, x[i], a[r][i]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int i = 0; i < N; ++i) f_store(acc + r * vd + d + i * W, a[r][i]);
  }
  for (; d + W <= vd; d += W) {
    vf a[R];
    for (int r = 0; r < R; ++r) a[r] = f_load(acc + r * vd + d);
    for (int t = 0; t < tokens; ++t) {
      const vf x = T::load(v, int64_t(t) * vd + d);
      for (int r = 0; r < R; ++r) a[r] = f_fma(f_set(p[r * kAttnKeys + t]), x, a[r]);
    }
    for (int r = 0; r < R; ++r) f_store(acc + r * vd + d, a[r]);
  }
  // a value width that is no multiple of the vector: lane by lane through a padded copy
  if (d < vd) {
    for (int r = 0; r < R; ++r) {
      vf a{};
      alignas(64) float in[W] = {};
      std::memcpy(in, acc + r * vd + d, size_t(vd - d) * 4);
      a = f_load(in);
      for (int t = 0; t < tokens; ++t) {
        alignas(64) uint8_t raw[W * 4] = {};
        std::memcpy(raw, v + (int64_t(t) * vd + d) * T::kBytes, size_t(vd - d) * T::kBytes);
        a = f_fma(f_set(p[r * kAttnKeys + t]), T::load(raw, 0), a);
      }
      f_store(in, a);
      std::memcpy(acc + r * vd + d, in, size_t(vd - d) * 4);
    }
  }
}

template <class T>
void scores_for(const float* q, int rows, int kd, const uint8_t* k, float* scores) {
  int r = 0;
  for (; r + 8 <= rows; r += 8) score_tile<T, 8>(q + r * kd, kd, k, scores + r * kAttnKeys);
  for (; r + 4 <= rows; r += 4) score_tile<T, 4>(q + r * kd, kd, k, scores + r * kAttnKeys);
  for (; r < rows; ++r) score_tile<T, 1>(q + r * kd, kd, k, scores + r * kAttnKeys);
}
template <class T>
void values_for(const float* p, int rows, int tokens, const uint8_t* v, int vd, float* acc) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) value_tile<T, 4>(p + r * kAttnKeys, tokens, v, vd, acc + r * vd);
  for (; r < rows; ++r) value_tile<T, 1>(p + r * kAttnKeys, tokens, v, vd, acc + r * vd);
}

// ---- the tile -----------------------------------------------------------------------------------

// Decode one 16-token tile to float: keys [kd][16], values [16][vd].
template <class T>
void widen(const uint8_t* p, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + W <= n; i += W) f_store(out + i, T::load(p, i));
}
void widen_q8_k(const KVLayer& kv, int64_t t, float* out) {
  const int kd = kv.key_dim;
  const int8_t* k = (const int8_t*)kv.k + t * kd * 16;
  for (int d = 0; d < kd; ++d)
    for (int h = 0; h < kParts; ++h)
      f_store(out + d * 16 + h * W,
              f_from_i(i_load_s8(k + d * 16 + h * W)) *
                  f_load_f16(kv.k_scale + (t * (kd / 32) + d / 32) * 16 + h * W));
}
void widen_q8_v(const KVLayer& kv, int64_t t, float* out) {
  const int vd = kv.value_dim;
  const int8_t* v = (const int8_t*)kv.v + t * 16 * vd;
  alignas(64) uint16_t half[W] = {};
  for (int i = 0; i < 16; ++i)
    for (int g = 0; g < vd / 32; ++g) {
      half[0] = kv.v_scale[(t * 16 + i) * (vd / 32) + g];
      const vf s = f_set(f_load_f16(half)[0]);
      for (int d = 0; d < 32; d += W) {
        const int at = i * vd + 32 * g + d;
        f_store(out + at, f_from_i(i_load_s8(v + at)) * s);
      }
    }
}

FH_INLINE vf softcap(vf s, float cap) {
  const vf x = s * f_set(1.0f / cap);
  const vf e = f_exp(x + x);
  return f_set(cap) * (f_set(1.0f) - f_set(2.0f) / (e + f_set(1.0f)));
}

template <class T>
void attention_typed(const AttentionTask& t) {
  const KVLayer& kv = *t.kv;
  const int kd = kv.key_dim, vd = kv.value_dim;
  const int group = t.num_heads / kv.num_kv_heads, heads = t.heads;
  const int rows = t.tokens * heads;
  constexpr bool kQ8 = T::kBytes == 1;
  // Few rows read the cache directly; many rows decode a tile once and share it.
  const bool shared = kQ8 || rows > 8;
  float* q = t.scratch;
  float* acc = q + kAttnRows * kd;
  float* scores = acc + kAttnRows * vd;
  float* row_max = scores + kAttnRows * kAttnKeys;
  float* row_sum = row_max + kAttnRows;
  float* kf = row_sum + kAttnRows;
  float* vfl = kf + kAttnKeys * kd;
  for (int i = 0; i < t.tokens; ++i)
    for (int g = 0; g < heads; ++g) {
      const float* src =
          t.q + (t.first_row + i) * t.ldq + int64_t(t.kv_head * group + t.head0 + g) * kd;
      float* dst = q + (i * heads + g) * kd;
      for (int d = 0; d < kd; ++d) dst[d] = src[d] * t.scale;
    }
  std::memset(acc, 0, size_t(rows) * vd * 4);
  const float ninf = -__builtin_inff();
  for (int r = 0; r < rows; ++r) {
    row_max[r] = ninf;
    row_sum[r] = 0.0f;
  }

  const int64_t last = t.first_pos + t.tokens - 1;
  int64_t start = 0;
  if (t.window > 0 && t.first_pos - t.window + 1 > 0) start = t.first_pos - t.window + 1;
  const int tiles_per_block = kv.block_size / 16;
  for (int64_t base = start / kAttnKeys * kAttnKeys; base <= last; base += kAttnKeys) {
    const int count = int(last + 1 - base < kAttnKeys ? last + 1 - base : kAttnKeys);
    const int tiles = (count + 15) / 16;
    int64_t index[kAttnKeys / 16];
    for (int i = 0; i < tiles; ++i) {
      const int64_t tile = base / 16 + i;
      index[i] = tile_index(kv, t.block_table[tile / tiles_per_block], t.kv_head,
                            int(tile % tiles_per_block));
    }
    for (int i = 0; i < tiles; ++i) {
      const int64_t tile = base / 16 + i;
      index[i] = tile_index(kv, t.block_table[tile / tiles_per_block], t.kv_head,
                            int(tile % tiles_per_block));
    }
    for (int i = 0; i < tiles; ++i) {
      if constexpr (kQ8) {
        widen_q8_k(kv, index[i], kf + i * kd * 16);
        widen_q8_v(kv, index[i], vfl + i * vd * 16);
      } else if (shared) {
        widen<T>(kv.k + index[i] * kd * 16 * T::kBytes, kd * 16, kf + i * kd * 16);
        widen<T>(kv.v + index[i] * vd * 16 * T::kBytes, vd * 16, vfl + i * vd * 16);
      }
      if constexpr (kQ8)
        scores_for<KvF32>(q, rows, kd, (const uint8_t*)(kf + i * kd * 16), scores + 16 * i);
      else if (shared)
        scores_for<KvF32>(q, rows, kd, (const uint8_t*)(kf + i * kd * 16), scores + 16 * i);
      else
        scores_for<T>(q, rows, kd, kv.k + index[i] * kd * 16 * T::kBytes, scores + 16 * i);
    }
    for (int r = 0; r < rows; ++r) {
      const int64_t pos = t.first_pos + r / heads;
      const int hi = int(pos - base < kAttnKeys ? pos - base : kAttnKeys - 1);  // last key seen
      const int64_t first = t.window > 0 ? pos - t.window + 1 - base : 0;
      const int lo = int(first < 0 ? 0 : first < kAttnKeys ? first : kAttnKeys);
      float* s = scores + r * kAttnKeys;
      vf top = f_set(ninf);
      for (int j = 0; j < tiles * 16; j += W) {
        vf x = f_load(s + j);
        if (t.softcap > 0.0f) x = softcap(x, t.softcap);
        const vi lane = i_iota() + j;
        const vi keep = (vi)(lane <= i_set(hi)) & (vi)(lane >= i_set(lo));
        x = f_select(keep, x, f_set(ninf));
        f_store(s + j, x);
        top = f_max(top, x);
      }
      const float old = row_max[r], tile_max = f_hmax(top);
      const float now = tile_max > old ? tile_max : old;
      const float ref = now == ninf ? 0.0f : now;
      vf sum{};
      for (int j = 0; j < tiles * 16; j += W) {
        const vf e = f_exp(f_load(s + j) - f_set(ref));
        f_store(s + j, e);
        sum += e;
      }
      if (now != old) {
        const float f = old == ninf ? 0.0f : f_exp(f_set(old - ref))[0];
        row_sum[r] *= f;
        float* a = acc + int64_t(r) * vd;
        for (int d = 0; d < vd; ++d) a[d] *= f;
      }
      row_sum[r] += f_sum(sum);
      row_max[r] = now;
    }
    for (int i = 0; i < tiles; ++i) {
      const int n = count - 16 * i < 16 ? count - 16 * i : 16;
      if (kQ8 || shared)
        values_for<KvF32>(scores + 16 * i, rows, n, (const uint8_t*)(vfl + i * vd * 16), vd, acc);
      else if constexpr (!kQ8)
        values_for<T>(scores + 16 * i, rows, n, kv.v + index[i] * vd * 16 * T::kBytes, vd, acc);
    }
  }
  for (int r = 0; r < rows; ++r) {
    const float inv = row_sum[r] > 0.0f ? 1.0f / row_sum[r] : 0.0f;
    float* out = t.out + (t.first_row + r / heads) * t.ldo +
                 int64_t(t.kv_head * group + t.head0 + r % heads) * vd;
    for (int d = 0; d < vd; ++d) out[d] = acc[int64_t(r) * vd + d] * inv;
  }
}

struct KvQ8 {
  static constexpr int kBytes = 1;
  static FH_INLINE vf load(const uint8_t*, int64_t) { return vf{}; }
};

void attention(const AttentionTask& t) {
  switch (t.kv->type) {
    case KVType::F32:
      return attention_typed<KvF32>(t);
    case KVType::F16:
      return attention_typed<KvF16>(t);
    case KVType::BF16:
      return attention_typed<KvBF16>(t);
    case KVType::Q8_0:
      return attention_typed<KvQ8>(t);
  }
}

}  // namespace
}  // namespace freehold
