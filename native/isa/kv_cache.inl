// SPDX-License-Identifier: Apache-2.0
// What a block of the cache holds: writing a token's keys and values, and decoding tiles of 16
// tokens to floats.

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
    const float* vh = vd ? v + int64_t(head) * vd : nullptr;  // null: keys alone
    const int64_t ki = t * kd * 16 + lane, vi0 = (t * 16 + lane) * vd;
    switch (kv.type) {
      case KVType::F32:
        for (int i = 0; i < kd; ++i) ((float*)kv.k)[ki + 16 * i] = kh[i];
        if (vd) std::memcpy((float*)kv.v + vi0, vh, size_t(vd) * 4);
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

// ---- reading ------------------------------------------------------------------------------------

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

// ---- values out of keys -------------------------------------------------------------------------

template <int... L>
struct Lanes {};
template <int N, int... L>
struct CountLanes : CountLanes<N - 1, N - 1, L...> {};
template <int... L>
struct CountLanes<0, L...> {
  using type = Lanes<L...>;
};

// Exchange the off-diagonal S x S squares of two rows that are S apart.
template <int S, int... L>
FH_INLINE void swap_squares(vf& a, vf& b, Lanes<L...>) {
#if defined(__clang__)
  const vf low = __builtin_shufflevector(a, b, (L & S ? W + (L ^ S) : L)...);
  b = __builtin_shufflevector(a, b, (L & S ? W + L : L ^ S)...);
#else
  const vf low = __builtin_shuffle(a, b, vi{(L & S ? W + (L ^ S) : L)...});
  b = __builtin_shuffle(a, b, vi{(L & S ? W + L : L ^ S)...});
#endif
  a = low;
}
template <int S>
FH_INLINE void transpose_step(vf* r) {
  if constexpr (S < W) {
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i)
      if (!(i & S)) swap_squares<S>(r[i], r[i | S], typename CountLanes<W>::type{});
    transpose_step<2 * S>(r);
  }
}

// A latent cache: the first vd dimensions of decoded keys [kd][16] as values [16][vd].
void keys_to_values(const float* k, int vd, float* v) {
  int d = 0;
  for (; d + W <= vd; d += W)
    for (int h = 0; h < kParts; ++h) {
      vf r[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) r[i] = f_load(k + (d + i) * 16 + h * W);
      transpose_step<1>(r);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) f_store(v + (h * W + i) * vd + d, r[i]);
    }
  for (; d < vd; ++d)
    for (int i = 0; i < 16; ++i) v[i * vd + d] = k[d * 16 + i];
}

}  // namespace
}  // namespace freehold
