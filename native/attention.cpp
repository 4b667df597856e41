// SPDX-License-Identifier: Apache-2.0
// Attention and the search for keys cut into tasks for the threads. How a task is cut never shows
// in a row's bits; arithmetic lives behind kernels.h.
#include <algorithm>
#include <cstring>

#include "ops.h"

namespace freehold {
namespace {

int64_t round_up(int64_t x, int64_t to) {
  return (x + to - 1) / to * to;
}
int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Up to here query heads that share a key head read it together, even when threads stand idle:
// reading is then what costs. Beyond, multiplying is, and another thread may decode the keys anew.
constexpr int kHeadsTogether = 8;

constexpr int kIndexTokens = 8;            // query rows that share decoded keys
constexpr int64_t kIndexKeys = 1024;       // positions per task
constexpr int64_t kIndexFloats = 1 << 22;  // scores held at once, but never less than a row's

// Integers in the order of the floats, what is no number before all others.
uint32_t ordered(float x) {
  if (x != x) return 0;
  x += 0.0f;  // -0 is 0
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}

// Sets the bits of the `count` best of n scores, the lower position first among equals.
void mark_best(const float* scores, int64_t n, int64_t count, uint64_t* order, uint64_t* bits) {
  for (int64_t p = 0; p < n; ++p) order[p] = uint64_t(ordered(scores[p])) << 32 | (~uint32_t(p));
  std::nth_element(order, order + count, order + n, [](uint64_t a, uint64_t b) { return a > b; });
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t p = ~uint32_t(order[i]);
    bits[p / 64] |= uint64_t(1) << (p % 64);
  }
}

// A tile of query tokens: spans of sequences that come one behind the other.
struct Unit {
  int64_t first_row, end;  // end: of the positions that its last row sees
  size_t span;             // the first of its spans
  int num_spans, tokens;
  int64_t common;  // positions whose keys all of them read
};

// Positions, a multiple of kAttnKeys and up to `most`, whose blocks are the same in both tables.
int64_t same_keys(const int32_t* a, const int32_t* b, int block_size, int64_t most) {
  const int64_t blocks = ceil_div(most, block_size);
  const int64_t same = std::mismatch(a, a + blocks, b).first - a;
  return std::min(same * block_size, most) / kAttnKeys * kAttnKeys;
}

// All query rows, cut into units of up to `tokens`. Sequences one behind the other that mostly read
// the same keys share a unit, so that these are read once; but not so many that threads would
// stand idle.
template <class Sequence>
std::vector<Unit> attention_units(const AttentionTask& base, const std::vector<Sequence>& sequences,
                                  int tokens, int threads, std::vector<AttentionSpan>& spans) {
  const bool plain = base.window <= 0 && base.chunk <= 0 && !base.selected;
  int64_t rows = 0;
  for (const Sequence& s : sequences) rows += s.rows;
  const int64_t together = std::min<int64_t>(tokens, rows * base.kv->num_kv_heads / threads);
  std::vector<Unit> units;
  for (const Sequence& s : sequences) {
    const int64_t past = s.length - s.rows;
    for (int64_t row = 0; row < s.rows;) {
      if (row == 0 && plain && !units.empty() && units.back().tokens + s.rows <= together) {
        Unit& u = units.back();
        // each span alone: its rows' keys before its first
        const int64_t most =
            u.num_spans > 1 ? std::min(u.common, past) : std::min(spans[u.span].first_pos, past);
        const int64_t same =
            same_keys(spans[u.span].block_table, s.block_table, base.kv->block_size, most);
        if (2 * same >= std::max(u.end, s.length)) {
          spans.push_back({int(s.rows), past, s.block_table});
          u.end = std::max(u.end, s.length);
          ++u.num_spans;
          u.tokens += int(s.rows);
          u.common = same;
          break;
        }
      }
      const int n = int(std::min<int64_t>(tokens, s.rows - row));
      units.push_back({s.first_row + row, past + row + n, spans.size(), 1, n, 0});
      spans.push_back({n, past + row, s.block_table});
      row += n;
    }
  }
  // the longest first, so that no thread is left with a long tile at the end
  std::stable_sort(units.begin(), units.end(),
                   [](const Unit& a, const Unit& b) { return a.end > b.end; });
  return units;
}

}  // namespace

void Context::attention(AttentionTask base, const std::vector<Sequence>& sequences) {
  const int group = base.num_heads / base.kv->num_kv_heads;
  int heads = std::min(group, kAttnRows);             // query heads per tile
  const int tokens = std::max(1, kAttnRows / heads);  // query tokens per tile
  std::vector<AttentionSpan> spans;
  std::vector<Unit> units = attention_units(base, sequences, tokens, threads(), spans);
  const int64_t key_heads = int64_t(units.size()) * base.kv->num_kv_heads;
  while (heads > kHeadsTogether && key_heads * ceil_div(group, heads) < threads())
    heads = std::max(kHeadsTogether, heads / 2);
  const int head_tiles = int(ceil_div(group, heads));
  const int64_t floats =
      round_up(int64_t(attention_scratch_floats(base.kv->key_dim, base.value_dim)), 16);
  float* scratch = reinterpret_cast<float*>(thread_scratch_.get(size_t(floats * 4 * threads())));
  const int64_t per_unit = int64_t(base.kv->num_kv_heads) * head_tiles;
  const auto one = [&](int64_t task, int thread) {
    const Unit& u = units[size_t(task / per_unit)];
    AttentionTask t = base;
    t.kv_head = int(task % per_unit / head_tiles);
    t.head0 = int(task % head_tiles) * heads;
    t.heads = std::min(heads, group - t.head0);
    t.first_row = u.first_row;
    t.spans = spans.data() + u.span;
    t.num_spans = u.num_spans;
    t.common = u.common;
    t.scratch = scratch + floats * thread;
    kernels_->attention(t);
  };
  const int64_t tasks = int64_t(units.size()) * per_unit;
  if (units.size() == 1 && sequences[0].length < 64) {  // too short to share
    for (int64_t i = 0; i < tasks; ++i) one(i, 0);
  } else {
    pool_.run(tasks, one);
  }
}

void Context::top_keys(const IndexTask& base, const std::vector<Sequence>& sequences, int64_t count,
                       uint64_t* bits, int64_t ldb) {
  for (const Sequence& s : sequences) {
    const int64_t past = s.length - s.rows;
    // rows that have no more than `count` positions keep them all
    const int64_t searched = std::clamp<int64_t>(count - past, 0, s.rows);
    for (int64_t r = 0; r < searched; ++r) {
      uint64_t* row = bits + (s.first_row + r) * ldb;
      for (int64_t p = 0; p <= past + r; ++p) row[p / 64] |= uint64_t(1) << (p % 64);
    }
    const int64_t width = round_up(s.length, kAttnKeys);
    const int64_t step = std::max<int64_t>(1, kIndexFloats / width);
    for (int64_t r = searched; r < s.rows; r += step)
      search(base, s, r, std::min(step, s.rows - r), width, count, bits, ldb);
  }
}

void Context::search(const IndexTask& base, const Sequence& s, int64_t row, int64_t rows,
                     int64_t width, int64_t count, uint64_t* bits, int64_t ldb) {
  const int64_t first_pos = s.length - s.rows + row;
  float* scores = reinterpret_cast<float*>(index_scratch_.get(size_t(rows * width * 4)));
  const int64_t bytes = round_up(
      std::max<int64_t>(int64_t(index_scratch_floats(base.kv->key_dim)) * 4, s.length * 8), 64);
  uint8_t* scratch = thread_scratch_.get(size_t(bytes * threads()));
  const int64_t stretches = ceil_div(s.length, kIndexKeys);
  pool_.run(ceil_div(rows, kIndexTokens) * stretches, [&](int64_t task, int thread) {
    const int64_t r = task / stretches * kIndexTokens;
    IndexTask t = base;
    t.tokens = int(std::min<int64_t>(kIndexTokens, rows - r));
    t.q += (s.first_row + row + r) * t.ldq;
    t.weights += (s.first_row + row + r) * t.ldw;
    t.first_key = task % stretches * kIndexKeys;
    t.end_key = std::min(t.first_key + kIndexKeys, first_pos + r + t.tokens);
    t.block_table = s.block_table;
    t.out = scores + r * width;
    t.ldo = width;
    t.scratch = reinterpret_cast<float*>(scratch + bytes * thread);
    kernels_->index_scores(t);
  });
  pool_.run(rows, [&](int64_t r, int thread) {
    mark_best(scores + r * width, first_pos + r + 1, count,
              reinterpret_cast<uint64_t*>(scratch + bytes * thread),
              bits + (s.first_row + row + r) * ldb);
  });
}

}  // namespace freehold
