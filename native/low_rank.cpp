// SPDX-License-Identifier: Apache-2.0
// Low-rank changes (adapters) to products that are there already: out += scale * up * (down * x) in
// some of the rows, several changes at once.
//
// All changes of a call are two lists of work for the threads: what `down` gives, then what `up`
// gives of that, added where it belongs. The products are those of `linear`, so that a row's bits
// do not depend on how many rows its adapter has, nor on how many adapters there are.
#include <algorithm>
#include <cstring>

#include "acts.h"
#include "ops.h"

namespace freehold {
namespace {

constexpr int64_t kMaxStep = 8;  // groups of rows in one piece of work: their sums stay in cache

}  // namespace

void Context::low_rank_acts(std::vector<QuantizeTask>& tasks) {
  std::vector<const Acts*> acts;
  int64_t bytes[int(ActKind::kCount)] = {};
  for (QuantizeTask& t : tasks) bytes[int(t.acts->kind)] += lay_out(t, *t.acts, nullptr);
  uint8_t* base[int(ActKind::kCount)] = {};
  for (int kind = 0; kind < int(ActKind::kCount); ++kind)
    if (bytes[kind]) base[kind] = expert_acts_[kind].get(size_t(bytes[kind]));
  for (QuantizeTask& t : tasks) {
    base[int(t.acts->kind)] += lay_out(t, *t.acts, base[int(t.acts->kind)]);
    acts.push_back(t.acts);
  }
  each_block(acts, [&](int64_t i, int blk) { kernels_->quantize(tasks[size_t(i)], blk); });
}

void Context::add_low_rank(const float* x, int64_t ldx, const std::vector<RowUpdate>& updates) {
  // One stretch of memory for the rows that are gathered and for what `down` gives.
  int64_t floats = 0, count = 0;
  for (const RowUpdate& u : updates) {
    if (u.rows) floats += u.count * u.changes[0].down->k;
    for (const LowRank& c : u.changes) floats += u.count * c.down->n;
    count += int64_t(u.changes.size());
  }
  if (floats == 0) return;
  float* next = reinterpret_cast<float*>(expert_rows_.get(size_t(floats) * sizeof(float)));

  // What `down` gives. Changes of one update that want their input in one form share it.
  std::vector<Acts> acts(static_cast<size_t>(count));
  std::vector<float*> lows;
  std::vector<QuantizeTask> tasks;
  std::vector<LinearTask> jobs;
  for (const RowUpdate& u : updates) {
    const int64_t k = u.changes[0].down->k;
    const float* rows = x;
    int64_t stride = ldx;
    if (u.rows) {
      for (int64_t r = 0; r < u.count; ++r)
        std::memcpy(next + r * k, x + u.rows[r] * ldx, size_t(k) * sizeof(float));
      rows = next, stride = k, next += u.count * k;
    }
    std::vector<const Matrix*> downs;
    for (const LowRank& c : u.changes) downs.push_back(c.down);
    Acts* mine[int(ActKind::kCount)] = {};
    for (const LowRank& c : u.changes) {
      const ActKind kind = act_kind(c.down->type, *kernels_);
      if (!mine[int(kind)]) {
        mine[int(kind)] = &acts[tasks.size()];
        tasks.push_back(plan(kind, u.count, k, downs, *mine[int(kind)]));
        tasks.back().x = rows;
        tasks.back().ldx = stride;
      }
      LinearTask job{};
      job.w[0] = c.down;
      job.acts[0] = mine[int(kind)];
      job.limit = kNoLimit;
      job.out = next;
      job.ldo = c.down->n;
      jobs.push_back(job);
      lows.push_back(next);
      next += u.count * c.down->n;
    }
  }
  low_rank_acts(tasks);
  run(jobs);

  tasks.clear();
  struct Piece {
    const RowUpdate* update;
    const LowRank* change;
    const Acts* acts;
    int64_t g0, g1;
  };
  std::vector<Piece> pieces;
  int64_t work = 0, widest = 0;
  size_t at = 0;
  for (const RowUpdate& u : updates) {
    for (const LowRank& c : u.changes) {
      const int64_t rank = c.up->k;
      for (int64_t i = 0; i < u.count * rank; ++i) lows[at][i] *= c.scale;
      tasks.push_back(plan(act_kind(c.up->type, *kernels_), u.count, rank, {c.up}, acts[at]));
      tasks.back().x = lows[at];
      tasks.back().ldx = rank;
      const int64_t share = c.up->groups / (threads() * 2);
      const int64_t step = std::clamp<int64_t>(share, 1, kMaxStep);
      for (int64_t g = 0; g < c.up->groups; g += step)
        pieces.push_back({&u, &c, &acts[at], g, std::min(g + step, c.up->groups)});
      widest = std::max(widest, u.count * step);
      work += u.count * rank * c.up->n;
      ++at;
    }
  }
  low_rank_acts(tasks);
  const int64_t bytes = widest * kGroupRows * int64_t(sizeof(float));
  uint8_t* sums = thread_scratch_.get(size_t(bytes * threads()));
  const auto one = [&](int64_t i, int thread) {
    const Piece& p = pieces[size_t(i)];
    const Matrix& up = *p.change->up;
    // The piece as a matrix of its own, whose results lie close together.
    Matrix part = up;
    part.n = std::min(up.n, p.g1 * kGroupRows) - p.g0 * kGroupRows;
    part.groups = p.g1 - p.g0;
    part.data = up.data + p.g0 * up.group_bytes;
    float* sum = reinterpret_cast<float*>(sums + bytes * thread);
    LinearTask job{};
    job.w[0] = &part;
    job.acts[0] = p.acts;
    job.limit = kNoLimit;
    job.out = sum;
    job.ldo = part.n;
    kernels_->linear(job, 0, part.groups, nullptr, false);
    for (int64_t r = 0; r < p.update->count; ++r) {
      const int64_t row = p.update->rows ? p.update->rows[r] : r;
      float* out = p.change->out + row * p.change->ldo + p.g0 * kGroupRows;
      for (int64_t j = 0; j < part.n; ++j) out[j] += sum[r * part.n + j];
    }
  };
  if (work >= 4 * kSmallWork) return pool_.run(int64_t(pieces.size()), one);
  for (int64_t i = 0; i < int64_t(pieces.size()); ++i) one(i, 0);
}

}  // namespace freehold
