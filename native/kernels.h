// SPDX-License-Identifier: Apache-2.0
// The boundary between portable orchestration (ops.cpp) and code compiled once per ISA
// (isa/kernels.cpp). Plain structs and one table of function pointers; no C++ library types,
// so that the ISA objects define no symbol another object could pick up by mistake.
#pragma once
#include <cstddef>
#include <cstdint>

namespace freehold {

constexpr int kGroupRows = 16;  // rows interleaved in a packed matrix: the lanes of one register

enum class QType : int {
  F32,
  F16,
  BF16,
  Q8_0,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q2_K,
  Q3_K,
  Q4_K,
  Q5_K,
  Q6_K,
  IQ4_NL,
  IQ4_XS,
  MXFP4,
  NVFP4,
  Q1_0,
  Q2_0,
  TQ1_0,
  TQ2_0,
  IQ1_S,
  IQ1_M,
  IQ2_XXS,
  IQ2_XS,
  IQ2_S,
  IQ3_XXS,
  IQ3_S,
  kCount
};

// How activations are presented to a weight type.
enum class ActKind : int {
  I8x32,   // int8 with one float scale per 32 values
  I8x256,  // int8 with one float scale per 256 values
  F32,     // untouched
  BF16,    // rounded to bfloat16 pairs (only where the ISA multiplies them)
  kCount
};

// Where a stored block keeps its parts. A packed matrix holds, for 16 rows at a time, the 4-byte
// words of a block, 16 rows side by side: exactly the stored bits, in another order. A lone scale
// of one or two bytes (the block is then no whole number of words) is its head; the heads of four
// or two blocks fill the 64 bytes before them.
struct QuantLayout {
  int block;       // values per block
  int bytes;       // bytes per block
  int head_bytes;  // size of the lone scale, 0 if there is none
  int head_off;    // its offset
  int word_off;    // offset of the first 4-byte word
  int words;       // number of words

  constexpr int head_blocks() const { return 64 / (kGroupRows * head_bytes); }  // per 64 bytes
};
const QuantLayout& quant_layout(QType type);

struct Matrix {
  QType type;
  int64_t n, k;         // out_features, in_features
  int64_t groups;       // ceil(n / 16)
  int64_t blocks;       // blocks per row
  int64_t group_bytes;  // per group, a multiple of 64
  const uint8_t* data;  // 64-byte aligned
};

// Offsets turned into accumulator start values: -offset * sum(activations of a span).
enum InitId : int {
  kInit16x4,
  kInit16x32,
  kInit16x64,
  kInit32x1,
  kInit32x8,
  kInit32x16,
  kInit32x64,
  kInit32x128,
  kInit256x1,
  kInitCount
};
struct InitShape {
  int span, offset;
};
constexpr InitShape kInitShapes[kInitCount] = {{16, 4},  {16, 32}, {16, 64},  {32, 1}, {32, 8},
                                               {32, 16}, {32, 64}, {32, 128}, {256, 1}};

// Activations of `cols` columns cut into column blocks of `cb` (the last may be smaller; its
// storage is padded to `last_cb`). Inside a block, values of the columns alternate, so that one
// broadcast load feeds one multiply.
struct Acts {
  ActKind kind;
  int64_t k;
  int cols, cb, nblk, last_cb;
  int8_t* quads;   // I8: [blk][k / 4][C][4]
  float* scale;    // I8: [blk][k / group][C]
  int16_t* sum16;  // I8x256: [blk][k / 32][C][2] sums of 16 values, as pairs
  int16_t* sum32;  // I8x256: [blk][k / 64][C][2] sums of 32 values, as pairs
  float* fsum;     // I8x32: [blk][k / 32][C] scale * sum
  int32_t* init[kInitCount];
  float* f32;      // F32: [blk][k][C]
  uint32_t* bf16;  // BF16: [blk][ceil(k / 2)][C] pairs

  int block_cols(int b) const { return b == nblk - 1 ? last_cb : cb; }
};

// All but Store: act(w0) * w1. SwigluOai: g * sigmoid(1.702 g) * (u + 1).
enum class Epilogue : int { Store, Silu, GeluTanh, Gelu, SwigluOai };

// One linear layer (or several over the same input, or a gated pair).
struct LinearTask {
  const Matrix* w[2];  // w[1] only with a gated epilogue
  const Acts* acts[2];
  const float* bias[2];  // [n] each or null
  float limit;           // of a gated pair: w0's product at most this, w1's within +-; infinity
  float* out;            // [cols, ldo]
  int64_t ldo;
  Epilogue epilogue;
};

struct QuantizeTask {
  const float* x;  // [cols, ldx]
  int64_t ldx;
  Acts* acts;
  bool need_sum16, need_sum32, need_fsum;
  bool need_init[kInitCount];
};

// Activations of a feed-forward without a gate.
enum class Pointwise : int { Silu, GeluTanh, Gelu, Relu2, Xielu };
struct PointwiseTask {
  Pointwise kind;
  float alpha_p, alpha_n, beta, eps;  // Xielu
};

enum class KVType : int { F32, F16, BF16, Q8_0 };

// One layer of a paged cache. 16 tokens form a tile. Keys are stored transposed
// [kv_head][block][tile][key_dim][16], values plainly [kv_head][block][tile][16][value_dim]: both
// products of attention then run without horizontal sums, and the blocks of one head, which one
// thread reads, follow each other in memory as long as the block table counts upwards. value_dim
// is 0 where keys are kept alone; what attention then takes for values are their first dimensions.
struct KVLayer {
  KVType type;
  int num_kv_heads, key_dim, value_dim, block_size;
  int64_t num_blocks;
  uint8_t* k;
  uint8_t* v;
  uint16_t* k_scale;  // Q8_0: [kv_head][block][tile][key_dim / 32][16] f16
  uint16_t* v_scale;  // Q8_0: [kv_head][block][tile][16][value_dim / 32] f16
};

// Consecutive query rows of one sequence.
struct AttentionSpan {
  int tokens;
  int64_t first_pos;
  const int32_t* block_table;
};

struct AttentionTask {
  const KVLayer* kv;
  const float* q;  // [tokens, ldq]
  int64_t ldq;
  float* out;  // [tokens, ldo]
  int64_t ldo;
  int num_heads, value_dim;
  float scale, softcap;
  int window, chunk;         // 0 = none
  const float* sinks;        // [num_heads] or null
  const uint64_t* selected;  // [tokens, lds] bits of the positions that count, or null
  int64_t lds;
  // one tile of queries: `heads` query heads (from the head0-th) of those that share one key head,
  // and consecutive rows from `first_row` on, `spans` one behind the other. Where there are
  // several, there is no window, chunk or selection, and the blocks of the first `common`
  // positions, a multiple of kAttnKeys, are the same in all of them and before any of their rows.
  int kv_head, head0, heads;
  int64_t first_row;
  const AttentionSpan* spans;
  int num_spans;
  int64_t common;
  float* scratch;  // attention_scratch_floats()
};
constexpr int kAttnRows = 32;  // query rows (tokens x heads of the group) per tile at most
constexpr int kAttnKeys = 64;  // keys per tile; absolute boundaries, so chunking changes nothing
constexpr int kMaxHeadDim = 576;
inline size_t attention_scratch_floats(int kd, int vd) {
  return size_t(kAttnRows) * (kd + vd + kAttnKeys + 4) + size_t(kAttnKeys) * (kd + vd) + 64;
}

// How well keys answer queries: sum over heads of weight * max(0, q . k), for the positions
// first_key .. end_key of one sequence, first_key a multiple of kAttnKeys.
struct IndexTask {
  const KVLayer* kv;  // of one head
  const float* q;     // [tokens, ldq]: heads * key_dim
  int64_t ldq;
  const float* weights;  // [tokens, ldw]: heads
  int64_t ldw;
  int heads, tokens;
  int64_t first_key, end_key;
  const int32_t* block_table;
  float* out;  // [tokens, ldo], by position; whole tiles of kAttnKeys are written
  int64_t ldo;
  float* scratch;  // index_scratch_floats()
};
constexpr int kIndexHeads = 32;  // at a time
inline size_t index_scratch_floats(int kd) {
  return size_t(kAttnKeys) * (kd + kIndexHeads) + 64;
}

struct Kernels {
  const char* name;
  int lanes;                        // hardware lanes of 32 bits
  bool bf16_acts;                   // BF16 weights multiply bfloat16 activations
  bool full_u8;                     // the byte dot product takes unsigned weights up to 255
  int (*col_block)(int cols);       // columns per block in a call with that many
  int (*pad_cols)(int cols);        // smallest supported register tile of at least cols columns
  int (*direct_max_cols)(QType t);  // up to here weights are unpacked for each column block, beyond
                                    // that once, into a panel
  int64_t (*panel_bytes)(const Matrix& m);
  void (*quantize)(const QuantizeTask& t, int blk);
  void (*linear)(const LinearTask& t, int64_t g0, int64_t g1, uint8_t* panel, bool use_panel);
  void (*dequant_row)(const Matrix& m, int64_t row, float* out);
  void (*rms_norm)(const float* x, const float* w, float* out, int64_t n, float eps);
  void (*layer_norm)(const float* x, const float* w, const float* b, float* out, int64_t n,
                     float eps);  // b may be null
  void (*activate)(const PointwiseTask& t, float* x, int64_t n);
  void (*sparse_gate)(float* x, int64_t n, float deviations);
  void (*mix_streams)(const float* const* streams, int64_t count, const float* weights,
                      float* const* outs, int64_t results, int64_t n);
  void (*add)(float* x, const float* y, int64_t n);
  void (*rope)(float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim,
               int64_t half, bool interleaved);
  void (*write_kv)(const KVLayer& kv, int64_t slot, const float* k, const float* v);
  void (*attention)(const AttentionTask& t);
  void (*index_scores)(const IndexTask& t);
  double (*int8_peak)(int64_t iters);  // returns int8 operations done
  uint64_t (*read_sum)(const uint8_t* p, int64_t bytes);
};

const Kernels* kernels_baseline();
const Kernels* kernels_avx2();
const Kernels* kernels_avxvnni();
const Kernels* kernels_avx512();
const Kernels* kernels_avx512_bf16();
const Kernels* kernels_neon();

}  // namespace freehold
