// SPDX-License-Identifier: Apache-2.0
// Paged attention, one tile of query rows against all its keys, with a running maximum.
//
// Keys are taken in tiles of 64 at absolute positions 0, 64, 128 ... and every row sums over
// dimensions and over tokens in ascending order, so neither chunking nor the other rows of the
// tile change a row's bits. Rows of sequences that begin alike are therefore free to read what they
// have in common together.

namespace freehold {
namespace {

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

// The same for two tiles of decoded keys, one behind the other: a query's value is read once for
// both, without which reading takes longer than multiplying.
template <int R>
FH_INLINE void score_two_tiles(const float* q, int kd, const float* k, float* scores) {
  for (int h = 0; h < kParts; ++h) {
    const float* a = k + h * W;
    const float* b = a + int64_t(kd) * 16;
    vf first[R] = {}, second[R] = {};
    for (int d = 0; d < kd; ++d) {
      const vf x = f_load(a + int64_t(d) * 16), y = f_load(b + int64_t(d) * 16);
      for (int r = 0; r < R; ++r) {
        const vf value = f_set(q[r * kd + d]);
        first[r] = f_fma(x, value, first[r]);
        second[r] = f_fma(y, value, second[r]);
      }
    }
    for (int r = 0; r < R; ++r) {
      f_store(scores + r * kAttnKeys + h * W, first[r]);
      f_store(scores + r * kAttnKeys + 16 + h * W, second[r]);
    }
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
void scores_for_two(const float* q, int rows, int kd, const float* k, float* scores) {
  int r = 0;
  if constexpr (W == 16)  // elsewhere there are not registers enough
    for (; r + 8 <= rows; r += 8) score_two_tiles<8>(q + r * kd, kd, k, scores + r * kAttnKeys);
  for (; r + 4 <= rows; r += 4) score_two_tiles<4>(q + r * kd, kd, k, scores + r * kAttnKeys);
  for (; r < rows; ++r) score_two_tiles<1>(q + r * kd, kd, k, scores + r * kAttnKeys);
}
template <class T>
void values_for(const float* p, int rows, int tokens, const uint8_t* v, int vd, float* acc) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) value_tile<T, 4>(p + r * kAttnKeys, tokens, v, vd, acc + r * vd);
  for (; r < rows; ++r) value_tile<T, 1>(p + r * kAttnKeys, tokens, v, vd, acc + r * vd);
}

// ---- the tile -----------------------------------------------------------------------------------

struct KvQ8 {  // is always decoded first
  static constexpr int kBytes = 1;
  static FH_INLINE vf load(const uint8_t*, int64_t) { return vf{}; }
};

FH_INLINE vf softcap(vf s, float cap) {
  const vf x = s * f_set(1.0f / cap);
  const vf e = f_exp(x + x);
  return f_set(cap) * (f_set(1.0f) - f_set(2.0f) / (e + f_set(1.0f)));
}

// The earliest position a query may see.
FH_INLINE int64_t first_visible(const AttentionTask& t, int64_t pos) {
  const int64_t window = t.window > 0 ? pos - t.window + 1 : 0;
  const int64_t chunk = t.chunk > 0 ? pos / t.chunk * t.chunk : 0;
  const int64_t first = window > chunk ? window : chunk;
  return first > 0 ? first : 0;
}

struct Running {  // what is kept of each row between key tiles
  float *q, *acc, *scores, *row_max, *row_sum;
};

// Rows of a tile that look at the same keys: all of them, or those of one span.
struct Rows {
  int first, tokens;  // the first and the number of query tokens, within the tile
  int64_t first_pos;
  const int32_t* block_table;
};

Running from_row(const AttentionTask& t, const Running& s, int64_t row) {
  return {s.q + row * t.kv->key_dim, s.acc + row * t.value_dim, s.scores + row * kAttnKeys,
          s.row_max + row, s.row_sum + row};
}

constexpr float kNoScore = -__builtin_inff();

void begin_rows(const AttentionTask& t, const Running& s, int rows) {
  const int kd = t.kv->key_dim, heads = t.heads;
  const int64_t head0 = int64_t(t.kv_head) * (t.num_heads / t.kv->num_kv_heads) + t.head0;
  for (int r = 0; r < rows; ++r) {
    const float* src = t.q + (t.first_row + r / heads) * t.ldq + (head0 + r % heads) * kd;
    float* dst = s.q + int64_t(r) * kd;
    for (int d = 0; d < kd; ++d) dst[d] = src[d] * t.scale;
    // a sink is a key seen before all others, and without a value
    s.row_max[r] = t.sinks ? t.sinks[head0 + r % heads] : kNoScore;
    s.row_sum[r] = s.row_max[r] == kNoScore ? 0.0f : 1.0f;
  }
  std::memset(s.acc, 0, size_t(rows) * t.value_dim * 4);
}

// Bits of the positions of a key tile that a row may see of those selected.
FH_INLINE uint64_t selected_bits(const AttentionTask& t, int64_t token, int64_t base) {
  return t.selected[(t.first_row + token) * t.lds + base / kAttnKeys];
}

// Which of the four 16-token parts of a key tile any row sees. The others are not touched: their
// blocks may be nobody's any more.
FH_INLINE int parts_seen(const AttentionTask& t, const Rows& q, int64_t base, int64_t start,
                         int tiles) {
  int seen = (1 << tiles) - 1;
  if (base < start) seen &= ~((1 << ((start - base) / 16)) - 1);
  if (t.selected) {
    uint64_t any = 0;
    for (int i = 0; i < q.tokens; ++i) any |= selected_bits(t, q.first + i, base);
    for (int i = 0; i < tiles; ++i)
      if (!(any >> (16 * i) & 0xffff)) seen &= ~(1 << i);
  }
  return seen;
}

// The largest of a row's scores, what it does not see being none.
FH_INLINE float mask_row(float* x, int tiles, int lo, int hi, uint64_t bits, float cap) {
  const vi one = i_set(1) << i_iota();
  vf top = f_set(kNoScore);
  for (int j = 0; j < tiles * 16; j += W) {
    vf v = f_load(x + j);
    if (cap > 0.0f) v = softcap(v, cap);
    const vi lane = i_iota() + j;
    const vi keep = (vi)(lane <= i_set(hi)) & (vi)(lane >= i_set(lo)) &
                    (vi)((i_set(int32_t(bits >> j)) & one) != vi{});
    v = f_select(keep, v, f_set(kNoScore));
    f_store(x + j, v);
    top = f_max(top, v);
  }
  return f_hmax(top);
}

// The same for a row that sees a whole tile, whose scores stay as they are.
FH_INLINE float top_score(const float* x) {
  vf top = f_set(kNoScore);
  for (int j = 0; j < kAttnKeys; j += W) top = f_max(top, f_load(x + j));
  return f_hmax(top);
}

// A row's scores to weights, its running maximum and sum brought up to date.
FH_INLINE void weigh_row(float* x, int count, float tile_max, float* row_max, float* row_sum,
                         float* acc, int vd) {
  const float old = *row_max, now = tile_max > old ? tile_max : old;
  const vf ref = f_set(now == kNoScore ? 0.0f : now);
  vf sum{};
  for (int j = 0; j < count; j += W) {
    const vf e = f_exp(f_load(x + j) - ref);
    f_store(x + j, e);
    sum += e;
  }
  if (now != old) {
    const float f = old == kNoScore ? 0.0f : f_exp(f_set(old - now))[0];
    *row_sum *= f;
    for (int d = 0; d < vd; ++d) acc[d] *= f;
    *row_max = now;
  }
  *row_sum += f_sum(sum);
}

// Scores of one key tile to weights.
void weigh_rows(const AttentionTask& t, const Rows& q, const Running& s, int64_t base, int tiles) {
  const int vd = t.value_dim;
  int r = 0;
  for (int token = 0; token < q.tokens; ++token) {
    const int64_t pos = q.first_pos + token;
    const int hi = int(pos - base < kAttnKeys ? pos - base : kAttnKeys - 1);  // last key seen
    const int64_t first = first_visible(t, pos) - base;
    const int lo = int(first < 0 ? 0 : first < kAttnKeys ? first : kAttnKeys);
    const uint64_t bits = t.selected ? selected_bits(t, q.first + token, base) : ~uint64_t(0);
    const bool whole = lo == 0 && hi == kAttnKeys - 1 && tiles == kAttnKeys / 16 &&
                       bits == ~uint64_t(0) && !(t.softcap > 0.0f);
    for (int head = 0; head < t.heads; ++head, ++r) {
      float* x = s.scores + r * kAttnKeys;
      float* acc = s.acc + int64_t(r) * vd;
      if (whole)
        weigh_row(x, kAttnKeys, top_score(x), s.row_max + r, s.row_sum + r, acc, vd);
      else
        weigh_row(x, tiles * 16, mask_row(x, tiles, lo, hi, bits, t.softcap), s.row_max + r,
                  s.row_sum + r, acc, vd);
    }
  }
}

void end_rows(const AttentionTask& t, const Running& s, int rows) {
  const int vd = t.value_dim, heads = t.heads;
  const int64_t head0 = int64_t(t.kv_head) * (t.num_heads / t.kv->num_kv_heads) + t.head0;
  for (int r = 0; r < rows; ++r) {
    const float inv = s.row_sum[r] > 0.0f ? 1.0f / s.row_sum[r] : 0.0f;
    float* out = t.out + (t.first_row + r / heads) * t.ldo + (head0 + r % heads) * vd;
    for (int d = 0; d < vd; ++d) out[d] = s.acc[int64_t(r) * vd + d] * inv;
  }
}

// Decode one 16-token part: keys to [kd][16], values, unless null, to [16][vd].
template <class T>
void decode_part(const KVLayer& kv, int64_t index, int vd, float* k, float* v) {
  if constexpr (T::kBytes == 1)
    widen_q8_k(kv, index, k);
  else
    widen<T>(kv.k + index * kv.key_dim * 16 * T::kBytes, kv.key_dim * 16, k);
  if (!v) return;
  if (kv.value_dim == 0)
    keys_to_values(k, vd, v);
  else if constexpr (T::kBytes == 1)
    widen_q8_v(kv, index, v);
  else
    widen<T>(kv.v + index * vd * 16 * T::kBytes, vd * 16, v);
}

FH_INLINE int64_t part_index(const KVLayer& kv, const int32_t* table, int head, int64_t part) {
  const int per_block = kv.block_size / 16;
  return tile_index(kv, table[part / per_block], head, int(part % per_block));
}

// A part is 1 to 4 KiB, and the next one lies elsewhere: too short for the hardware to run ahead.
// So values are asked for while their keys are multiplied, and the next keys meanwhile in turn.
FH_INLINE void ask_for(const uint8_t* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
}

// Rows against the keys at positions begin .. last, as far as each of them sees.
template <class T>
void attend(const AttentionTask& t, const Rows& q, const Running& s, int64_t begin, int64_t last,
            float* kf, float* vfl) {
  const KVLayer& kv = *t.kv;
  const int kd = kv.key_dim, vd = t.value_dim, rows = q.tokens * t.heads;
  constexpr bool kQ8 = T::kBytes == 1;
  // Few rows read the cache directly; many rows decode a tile once and share it.
  const bool shared = kQ8 || kv.value_dim == 0 || rows > 8;
  const int64_t key_bytes = int64_t(kd) * 16 * T::kBytes;
  const int64_t value_bytes = int64_t(kv.value_dim) * 16 * T::kBytes;
  for (int64_t base = begin / kAttnKeys * kAttnKeys; base <= last; base += kAttnKeys) {
    const int count = int(last + 1 - base < kAttnKeys ? last + 1 - base : kAttnKeys);
    const int tiles = (count + 15) / 16, seen = parts_seen(t, q, base, begin, tiles);
    if (!seen) continue;
    int64_t index[kAttnKeys / 16];
    for (int i = 0; i < tiles; ++i) {
      if (!(seen >> i & 1)) continue;
      index[i] = part_index(kv, q.block_table, t.kv_head, base / 16 + i);
      ask_for((const uint8_t*)kv.v + index[i] * value_bytes, value_bytes);
      if (shared) {
        float* k = kf + i * kd * 16;
        decode_part<T>(kv, index[i], vd, k, vfl + i * vd * 16);
        // by twos; one without a neighbour, by itself
        if (i % 2 && seen >> (i - 1) & 1)
          scores_for_two(s.q, rows, kd, k - kd * 16, s.scores + 16 * (i - 1));
        else if (i % 2 || i + 1 == tiles || !(seen >> (i + 1) & 1))
          scores_for<KvF32>(s.q, rows, kd, (const uint8_t*)k, s.scores + 16 * i);
      } else if constexpr (!kQ8) {
        scores_for<T>(s.q, rows, kd, kv.k + index[i] * key_bytes, s.scores + 16 * i);
      }
    }
    weigh_rows(t, q, s, base, tiles);
    for (int i = 0; i < tiles; ++i) {
      if (base + kAttnKeys + 16 * i <= last) {
        const int64_t part = (base + kAttnKeys) / 16 + i;
        const int64_t next = part_index(kv, q.block_table, t.kv_head, part);
        ask_for((const uint8_t*)kv.k + next * key_bytes, key_bytes);
      }
      if (!(seen >> i & 1)) continue;
      const int n = count - 16 * i < 16 ? count - 16 * i : 16;
      const float* p = s.scores + 16 * i;
      if (shared)
        values_for<KvF32>(p, rows, n, (const uint8_t*)(vfl + i * vd * 16), vd, s.acc);
      else if constexpr (!kQ8)
        values_for<T>(p, rows, n, kv.v + index[i] * value_bytes, vd, s.acc);
    }
  }
}

template <class T>
void attention_typed(const AttentionTask& t) {
  const int kd = t.kv->key_dim, vd = t.value_dim;
  Running s;
  s.q = t.scratch;
  s.acc = s.q + kAttnRows * kd;
  s.scores = s.acc + kAttnRows * vd;
  s.row_max = s.scores + kAttnRows * kAttnKeys;
  s.row_sum = s.row_max + kAttnRows;
  float* kf = s.row_sum + kAttnRows;
  float* vfl = kf + kAttnKeys * kd;
  int tokens = 0;
  for (int i = 0; i < t.num_spans; ++i) tokens += t.spans[i].tokens;
  begin_rows(t, s, tokens * t.heads);
  if (t.common > 0) {  // all of it lies before every row: a later position stands for them all
    const Rows all{0, tokens, t.common, t.spans[0].block_table};
    attend<T>(t, all, s, 0, t.common - 1, kf, vfl);
  }
  int first = 0;
  for (int i = 0; i < t.num_spans; ++i) {
    const AttentionSpan& span = t.spans[i];
    const Rows rows{first, span.tokens, span.first_pos, span.block_table};
    const int64_t visible = first_visible(t, span.first_pos);
    const int64_t begin = visible > t.common ? visible : t.common;
    const int64_t last = span.first_pos + span.tokens - 1;
    attend<T>(t, rows, from_row(t, s, int64_t(first) * t.heads), begin, last, kf, vfl);
    first += span.tokens;
  }
  end_rows(t, s, tokens * t.heads);
}

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
