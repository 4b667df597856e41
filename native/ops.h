// SPDX-License-Identifier: Apache-2.0
// Operations split over threads. Knows shapes and threads; arithmetic lives behind kernels.h.
#pragma once
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "thread_pool.h"

namespace freehold {

// Below this many elements a parallel region costs more than it saves.
constexpr int64_t kSmallWork = 1 << 15;
constexpr float kNoLimit = std::numeric_limits<float>::infinity();

class Context {
 public:
  Context(int threads, const Kernels* kernels) : kernels_(kernels), pool_(threads) {}

  const Kernels& kernels() const { return *kernels_; }
  int threads() const { return pool_.size(); }
  std::mutex& mutex() { return mutex_; }
  size_t weight_bytes() const { return arena_.used(); }

  // Packs n x k weights. Exactly one source: bytes in memory, or a file read with pread, so that
  // no page of the file is ever mapped (a file that shrinks is an error here, not a SIGBUS).
  // Returns false when the file ended early or could not be read.
  bool pack(Matrix& m, const uint8_t* bytes, int fd, int64_t offset);

  struct Linear {
    const Matrix* w;
    const Matrix* up;  // with a gated epilogue
    const float* bias;
    float* out;
    int64_t ldo;
    Epilogue epilogue = Epilogue::Store;
    const float* up_bias = nullptr;
    float limit = kNoLimit;
  };
  void linear(const float* x, int64_t ldx, int64_t cols, const std::vector<Linear>& layers);
  // Row c of x is cut into equal heads. Each one's first values meet a matrix of its own, which all
  // have one shape; what lies beyond them is copied behind the result.
  void linear_heads(const float* x, int64_t ldx, int64_t head, int64_t cols,
                    const std::vector<const Matrix*>& weights, float* out, int64_t ldo);

  struct LowRank {
    const Matrix *down, *up;  // [rank, k] and [n, rank]
    float scale;
    float* out;  // [rows of x, ldo], what comes from n rows of weights
    int64_t ldo;
  };
  struct RowUpdate {
    const int32_t* rows;  // of x and of every out, each in one update at most; null = the first
    int64_t count;
    std::vector<LowRank> changes;  // at least one
  };
  void add_low_rank(const float* x, int64_t ldx, const std::vector<RowUpdate>& updates);

  // Softmax over all experts, the top_k largest logits first; those that are no numbers come last.
  void route(const float* logits, int64_t ldl, int64_t tokens, int64_t experts, int64_t top_k,
             bool normalise, double scale, int32_t* chosen, float* weights);

  struct Expert {
    const Matrix *gate, *up, *down;
    const float *gate_bias, *up_bias, *down_bias;  // each may be null
  };
  struct Mixture {
    const float* x;  // [tokens, ldx]
    int64_t ldx, tokens, slots;
    std::vector<Expert> experts;  // of equal shapes
    const int32_t* chosen;        // [tokens, slots] indices into experts
    const float* weights;         // [tokens, slots]
    bool weigh_input;
    Epilogue epilogue;
    float limit;
    float* out;  // [tokens, ldo]
    int64_t ldo;
  };
  void moe(const Mixture& m);

  void embed(const Matrix& table, const int32_t* ids, int64_t count, float* out, int64_t ldo);
  // residual may be null; otherwise residual += x first and the sum is what gets normed
  void rms_norm(float* residual, int64_t ldr, const float* x, int64_t ldx, const float* w,
                int64_t width, int64_t rows, int64_t heads, float eps, float* out, int64_t ldo);
  void layer_norm(const float* x, int64_t ldx, const float* w, const float* b, int64_t width,
                  int64_t rows, float eps, float* out, int64_t ldo);
  void activate(const PointwiseTask& task, float* x, int64_t ldx, int64_t width, int64_t rows);
  void sparse_gate(float* x, int64_t ldx, int64_t width, int64_t rows, float deviations);
  struct Rows {
    float* data;
    int64_t stride;
  };
  static constexpr int64_t kMaxStreams = 64;
  // results.size() rows of weights for streams.size() streams, side by side, per token
  void mix_streams(const std::vector<Rows>& streams, const float* weights, int64_t ldw,
                   const std::vector<Rows>& results, int64_t width, int64_t rows);
  void rope(float* x, int64_t ldx, int64_t rows, int64_t heads, int64_t head_dim, const float* cos,
            const float* sin, int64_t half, bool interleaved);
  void write_kv(const KVLayer& kv, const int32_t* slots, int64_t rows, const float* k, int64_t ldk,
                const float* v, int64_t ldv);  // v null: keys alone

  struct Sequence {
    int64_t first_row, rows, length;
    const int32_t* block_table;
  };
  void attention(AttentionTask task, const std::vector<Sequence>& sequences);
  // Sets in bits [rows, ldb], zeroed, the `count` best positions of every row.
  void top_keys(const IndexTask& task, const std::vector<Sequence>& sequences, int64_t count,
                uint64_t* bits, int64_t ldb);

  // Multiplies a little of every type on this level and on the baseline level and compares: a
  // kernel that a processor or its emulation gets wrong must not answer anybody.
  bool self_check();

  double read_gbps(int64_t bytes);
  double int8_gops(double seconds);

 private:
  template <class Fn>
  void for_rows(int64_t rows, int64_t work_per_row, Fn&& fn);
  // Shape of the activations of `cols` columns, and what `weights` want to know of them.
  QuantizeTask plan(ActKind kind, int64_t cols, int64_t k,
                    const std::vector<const Matrix*>& weights, Acts& a, int width = 0) const;
  void search(const IndexTask& task, const Sequence& s, int64_t row, int64_t rows, int64_t width,
              int64_t count, uint64_t* bits, int64_t ldb);
  Acts* prepare(ActKind kind, const float* x, int64_t ldx, int64_t cols, int64_t k,
                const std::vector<Linear>& layers);

  // Lays out and quantises the inputs of several multiplications at once.
  void low_rank_acts(std::vector<QuantizeTask>& tasks);
  // Multiplies; the jobs are one list of work for the threads.
  void run(const std::vector<LinearTask>& jobs);
  struct Picks;
  struct ExpertActs;
  void moe_inputs(const Mixture& m, const Picks& picks, const float* x, int64_t ldx, int64_t rows,
                  std::vector<ExpertActs>& mine);
  void moe_inner(const Mixture& m, const Picks& picks, const float* rows,
                 std::vector<ExpertActs>& mine);
  void moe_sum(const Mixture& m, const Picks& picks, const float* rows);
  // fn(which activations, which block) for every block of all of them.
  void each_block(const std::vector<const Acts*>& acts,
                  const std::function<void(int64_t, int)>& fn);

  const Kernels* kernels_;
  ThreadPool pool_;
  std::mutex mutex_;
  Arena arena_;
  Scratch act_scratch_[int(ActKind::kCount)];
  Acts acts_[int(ActKind::kCount)];
  Scratch thread_scratch_, index_scratch_;
  // of mixtures and of low-rank changes
  Scratch expert_rows_, expert_acts_[int(ActKind::kCount)];
};

ActKind act_kind(QType type, const Kernels& k);

}  // namespace freehold
