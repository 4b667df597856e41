// SPDX-License-Identifier: Apache-2.0
// A mixture of experts: every token through the few experts chosen for it.
//
// Rows of one expert are gathered, so that its weights are read once for all of them, and the
// experts of a call are one list of work: with two experts and one token no thread waits for the
// other expert, with hundreds of tokens each expert gets the kernels of a wide call. A token's
// activations are quantised once, however many experts it goes to.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "acts.h"
#include "ops.h"

namespace freehold {
namespace {

constexpr int kKinds = int(ActKind::kCount);

constexpr int kMaxParts = 5 + kInitCount;
struct Parts {
  struct Part {
    uint8_t* data;
    int64_t bytes;  // per column
  } part[kMaxParts];
  int count = 0;

  Parts(Acts a, const QuantizeTask& needs) {
    each_part(a, needs, [&](auto*& p, int64_t bytes) {
      part[count++] = {reinterpret_cast<uint8_t*>(p), bytes};
    });
  }
};

// Block `blk` of `to`: column c is row rows[c] of `from`, which has one column per block. Columns
// that only pad repeat the last.
void gather(const Acts& from, Acts& to, const QuantizeTask& needs, const int64_t* rows, int blk) {
  const Parts src(from, needs), dst(to, needs);
  const int64_t first = int64_t(blk) * to.cb;
  const int width = to.block_cols(blk);
  for (int p = 0; p < src.count; ++p) {
    const int64_t bytes = src.part[p].bytes;
    for (int c = 0; c < width; ++c) {
      const int64_t row = rows[std::min<int64_t>(first + c, to.cols - 1)];
      const uint8_t* s = src.part[p].data + row * bytes;
      uint8_t* d = dst.part[p].data + first * bytes + c * 4;
      for (int64_t i = 0; i < bytes; i += 4, d += 4 * width) std::memcpy(d, s + i, 4);
    }
  }
}

// Row `row` alone, where it lies.
Acts single_row(Acts a, const QuantizeTask& needs, int64_t row) {
  each_part(a, needs, [&](auto*& p, int64_t bytes) {
    p = reinterpret_cast<std::remove_reference_t<decltype(p)>>(reinterpret_cast<uint8_t*>(p) +
                                                               row * bytes);
  });
  a.cols = a.cb = a.nblk = a.last_cb = 1;
  return a;
}

}  // namespace

// The picks, by expert. Slot s of token t is pick t * slots + s; the rows of an expert follow each
// other in the order of their picks.
struct Context::Picks {
  std::vector<int64_t> rank;   // [picks] row of each pick
  std::vector<int64_t> input;  // [picks] row of the input that each row needs
  std::vector<int64_t> start;  // [experts + 1] rows of each expert
  std::vector<int> order;      // experts, the most wanted first: the last to finish are then short

  explicit Picks(const Mixture& m) : start(m.experts.size() + 1) {
    const int64_t picks = m.tokens * m.slots;
    for (int64_t p = 0; p < picks; ++p) ++start[size_t(m.chosen[p]) + 1];
    std::partial_sum(start.begin(), start.end(), start.begin());
    std::vector<int64_t> next(start.begin(), start.end() - 1);
    rank.resize(size_t(picks));
    input.resize(size_t(picks));
    for (int64_t p = 0; p < picks; ++p) {
      const int64_t row = rank[size_t(p)] = next[size_t(m.chosen[p])]++;
      input[size_t(row)] = m.weigh_input ? row : p / m.slots;
    }
    for (size_t e = 0; e < m.experts.size(); ++e)
      if (rows(int(e)) > 0) order.push_back(int(e));
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return rows(a) > rows(b); });
  }
  int64_t rows(int e) const { return start[size_t(e) + 1] - start[size_t(e)]; }
};

struct Context::ExpertActs {
  Acts kind[kKinds];
  const Acts* of(const Matrix& w, const Kernels& k) const {
    return &kind[int(act_kind(w.type, k))];
  }
};

void Context::route(const float* logits, int64_t ldl, int64_t tokens, int64_t experts,
                    int64_t top_k, bool normalise, double scale, int32_t* chosen, float* weights) {
  const auto one = [&](int64_t t, int) {
    const float* row = logits + t * ldl;
    std::vector<int32_t> order(static_cast<size_t>(experts));
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + top_k, order.end(), [&](int a, int b) {
      const bool known = !std::isnan(row[a]), other = !std::isnan(row[b]);
      if (known != other) return known;
      return known && row[a] != row[b] ? row[a] > row[b] : a < b;
    });
    // The first is the largest, so no power overflows.
    const double top = row[order[0]];
    double total = 0.0;
    if (normalise)
      for (int64_t i = 0; i < top_k; ++i) total += std::exp(row[order[size_t(i)]] - top);
    else
      for (int64_t i = 0; i < experts; ++i) total += std::exp(row[i] - top);
    for (int64_t i = 0; i < top_k; ++i) {
      chosen[t * top_k + i] = order[size_t(i)];
      weights[t * top_k + i] = float(std::exp(row[order[size_t(i)]] - top) / total * scale);
    }
  };
  if (tokens * experts >= kSmallWork) return pool_.run(tokens, one);
  for (int64_t t = 0; t < tokens; ++t) one(t, 0);
}

void Context::each_block(const std::vector<const Acts*>& acts,
                         const std::function<void(int64_t, int)>& fn) {
  std::vector<int64_t> first{0};  // task of each one's first block
  int64_t work = 0;
  for (const Acts* a : acts) {
    first.push_back(first.back() + a->nblk);
    work += a->cols * a->k;
  }
  const auto one = [&](int64_t task, int) {
    const auto at = std::upper_bound(first.begin(), first.end(), task) - 1;
    fn(at - first.begin(), int(task - *at));
  };
  if (work >= kSmallWork) return pool_.run(first.back(), one);
  for (int64_t task = 0; task < first.back(); ++task) one(task, 0);
}

// Every row of the input is quantised once; then each expert gets the columns of its rows, in the
// order that its tiles read.
void Context::moe_inputs(const Mixture& m, const Picks& picks, const float* x, int64_t ldx,
                         int64_t rows, std::vector<ExpertActs>& mine) {
  std::vector<const Matrix*> weights;
  bool wanted[kKinds] = {};
  for (int e : picks.order)
    for (const Matrix* w : {m.experts[size_t(e)].gate, m.experts[size_t(e)].up}) {
      weights.push_back(w);
      wanted[int(act_kind(w->type, *kernels_))] = true;
    }
  const int64_t hidden = weights[0]->k;
  for (int kind = 0; kind < kKinds; ++kind) {
    if (!wanted[kind]) continue;
    Acts& all = acts_[kind];
    QuantizeTask task = plan(ActKind(kind), rows, hidden, weights, all, 1);
    task.x = x;
    task.ldx = ldx;
    lay_out(task, all, act_scratch_[kind].get(size_t(lay_out(task, all, nullptr))));
    each_block({&all}, [&](int64_t, int blk) { kernels_->quantize(task, blk); });

    std::vector<const Acts*> gathered;
    std::vector<int> owner;
    int64_t bytes = 0;
    for (int e : picks.order) {
      Acts& a = mine[size_t(e)].kind[kind];
      if (picks.rows(e) == 1) {
        a = single_row(all, task, picks.input[size_t(picks.start[size_t(e)])]);
        continue;
      }
      plan(ActKind(kind), picks.rows(e), hidden, {}, a);
      bytes += lay_out(task, a, nullptr);
      gathered.push_back(&a);
      owner.push_back(e);
    }
    uint8_t* base = expert_acts_[kind].get(size_t(bytes));
    for (int e : owner) base += lay_out(task, mine[size_t(e)].kind[kind], base);
    each_block(gathered, [&](int64_t i, int blk) {
      const size_t e = size_t(owner[size_t(i)]);
      gather(all, mine[e].kind[kind], task, picks.input.data() + picks.start[e], blk);
    });
  }
}

// The rows that went through gate and up lie side by side already.
void Context::moe_inner(const Mixture& m, const Picks& picks, const float* rows,
                        std::vector<ExpertActs>& mine) {
  std::vector<QuantizeTask> tasks;
  std::vector<const Acts*> acts;
  int64_t bytes[kKinds] = {};
  for (int e : picks.order) {
    const Matrix& down = *m.experts[size_t(e)].down;
    const ActKind kind = act_kind(down.type, *kernels_);
    Acts& a = mine[size_t(e)].kind[int(kind)];
    tasks.push_back(plan(kind, picks.rows(e), down.k, {&down}, a));
    tasks.back().x = rows + picks.start[size_t(e)] * down.k;
    tasks.back().ldx = down.k;
    acts.push_back(&a);
    bytes[int(kind)] += lay_out(tasks.back(), a, nullptr);
  }
  uint8_t* base[kKinds];
  for (int kind = 0; kind < kKinds; ++kind)
    base[kind] = bytes[kind] ? expert_acts_[kind].get(size_t(bytes[kind])) : nullptr;
  for (QuantizeTask& t : tasks)
    base[int(t.acts->kind)] += lay_out(t, *t.acts, base[int(t.acts->kind)]);
  each_block(acts, [&](int64_t i, int blk) { kernels_->quantize(tasks[size_t(i)], blk); });
}

void Context::moe(const Mixture& m) {
  if (m.tokens == 0) return;
  const Picks picks(m);
  const int64_t count = m.tokens * m.slots;
  const int64_t hidden = m.experts[0].gate->k, inner = m.experts[0].gate->n;
  float* rows = reinterpret_cast<float*>(
      expert_rows_.get(size_t(count * std::max(hidden, inner)) * sizeof(float)));
  std::vector<ExpertActs> mine(m.experts.size());
  if (m.weigh_input) {
    for (int64_t p = 0; p < count; ++p)
      for (int64_t i = 0; i < hidden; ++i)
        rows[picks.rank[size_t(p)] * hidden + i] = m.x[p / m.slots * m.ldx + i] * m.weights[p];
    moe_inputs(m, picks, rows, hidden, count, mine);
  } else {
    moe_inputs(m, picks, m.x, m.ldx, m.tokens, mine);
  }

  // What lies in `rows` is used up by the time a step writes there.
  std::vector<LinearTask> jobs;
  for (int e : picks.order) {
    const Expert& expert = m.experts[size_t(e)];
    LinearTask job{};
    job.w[0] = expert.gate;
    job.w[1] = expert.up;
    job.acts[0] = mine[size_t(e)].of(*expert.gate, *kernels_);
    job.acts[1] = mine[size_t(e)].of(*expert.up, *kernels_);
    job.bias[0] = expert.gate_bias;
    job.bias[1] = expert.up_bias;
    job.epilogue = m.epilogue;
    job.limit = m.limit;
    job.out = rows + picks.start[size_t(e)] * inner;
    job.ldo = inner;
    jobs.push_back(job);
  }
  run(jobs);
  moe_inner(m, picks, rows, mine);
  jobs.clear();
  for (int e : picks.order) {
    const Expert& expert = m.experts[size_t(e)];
    LinearTask job{};
    job.w[0] = expert.down;
    job.acts[0] = mine[size_t(e)].of(*expert.down, *kernels_);
    job.bias[0] = expert.down_bias;
    job.out = rows + picks.start[size_t(e)] * hidden;
    job.ldo = hidden;
    jobs.push_back(job);
  }
  run(jobs);
  moe_sum(m, picks, rows);
}

// Slot by slot, so that no token's sum depends on where its rows happened to lie.
void Context::moe_sum(const Mixture& m, const Picks& picks, const float* rows) {
  const int64_t hidden = m.experts[0].gate->k;
  const auto one = [&](int64_t t, int) {
    float* total = m.out + t * m.ldo;
    for (int64_t s = 0; s < m.slots; ++s) {
      const int64_t pick = t * m.slots + s;
      const float* row = rows + picks.rank[size_t(pick)] * hidden;
      const float weight = m.weigh_input ? 1.0f : m.weights[pick];
      if (s == 0)
        for (int64_t i = 0; i < hidden; ++i) total[i] = weight * row[i];
      else
        for (int64_t i = 0; i < hidden; ++i) total[i] += weight * row[i];
    }
  };
  if (m.tokens * m.slots * hidden >= kSmallWork) return pool_.run(m.tokens, one);
  for (int64_t t = 0; t < m.tokens; ++t) one(t, 0);
}

}  // namespace freehold
