// SPDX-License-Identifier: Apache-2.0
// The search for keys: how well each position's key answers the heads of a query, summed up. Shares
// the decoding of tiles and their products with attention.inl.

namespace freehold {
namespace {

template <class T>
void index_scores_typed(const IndexTask& t) {
  const KVLayer& kv = *t.kv;
  const int kd = kv.key_dim;
  float* k = t.scratch;
  float* scores = k + kAttnKeys * kd;
  for (int64_t base = t.first_key; base < t.end_key; base += kAttnKeys) {
    const int64_t left = t.end_key - base;
    const int tiles = int((left < kAttnKeys ? left : kAttnKeys) + 15) / 16;
    for (int i = 0; i < tiles; ++i)
      decode_part<T>(kv, part_index(kv, t.block_table, 0, base / 16 + i), 0, k + i * kd * 16,
                     nullptr);
    for (int token = 0; token < t.tokens; ++token) {
      vf sum[kAttnKeys / W] = {};
      for (int h0 = 0; h0 < t.heads; h0 += kIndexHeads) {
        const int heads = t.heads - h0 < kIndexHeads ? t.heads - h0 : kIndexHeads;
        const float* q = t.q + token * t.ldq + int64_t(h0) * kd;
        const float* w = t.weights + token * t.ldw + h0;
        for (int i = 0; i < tiles; ++i)
          scores_for<KvF32>(q, heads, kd, (const uint8_t*)(k + i * kd * 16), scores + 16 * i);
        for (int h = 0; h < heads; ++h)
          for (int j = 0; j < tiles * kParts; ++j) {
            const vf x = f_load(scores + h * kAttnKeys + j * W);
            // not f_max: what is not a number must stay so
            sum[j] = f_fma(f_set(w[h]), f_select((vi)(x < vf{}), vf{}, x), sum[j]);
          }
      }
      for (int j = 0; j < tiles * kParts; ++j)
        f_store(t.out + token * t.ldo + base + j * W, sum[j]);
    }
  }
}

void index_scores(const IndexTask& t) {
  switch (t.kv->type) {
    case KVType::F32:
      return index_scores_typed<KvF32>(t);
    case KVType::F16:
      return index_scores_typed<KvF16>(t);
    case KVType::BF16:
      return index_scores_typed<KvBF16>(t);
    case KVType::Q8_0:
      return index_scores_typed<KvQ8>(t);
  }
}

}  // namespace
}  // namespace freehold
