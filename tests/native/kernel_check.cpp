// SPDX-License-Identifier: Apache-2.0
// Every kernel level this processor runs, against the baseline level: for machines where the
// Python tests cannot go (aarch64 under qemu) and for the sanitizers, which like a plain program.
// Exits with 1 and says what differed.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "../../native/dispatch.h"
#include "../../native/ops.h"

using namespace freehold;

namespace {

std::mt19937 rng(1);
int failures = 0, checks = 0;

float uniform() {
  return std::uniform_real_distribution<float>(-1.0f, 1.0f)(rng);
}
std::vector<float> floats(size_t n) {
  std::vector<float> v(n);
  for (float& x : v) x = uniform();
  return v;
}

// Largest difference relative to the spread of what is expected.
double error(const std::vector<float>& got, const std::vector<float>& want) {
  double worst = 0.0, square = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double d = std::fabs(double(got[i]) - want[i]);
    worst = d > worst || d != d ? d : worst;
    square += double(want[i]) * want[i];
  }
  return worst / (std::sqrt(square / double(want.size())) + 1e-30);
}
void expect(double err, double allowed, const char* what, const char* isa, int a, int b) {
  ++checks;
  if (err <= allowed) return;
  ++failures;
  std::printf("%s on %s (%d, %d): error %g above %g\n", what, isa, a, b, err, allowed);
}

std::vector<uint8_t> weights(QType type, int64_t n, int64_t k) {
  const QuantLayout& q = quant_layout(type);
  std::vector<uint8_t> bytes(size_t(n * (k / q.block) * q.bytes));
  if (type == QType::F32) {
    const auto v = floats(bytes.size() / 4);
    std::memcpy(bytes.data(), v.data(), bytes.size());
    return bytes;
  }
  for (uint8_t& b : bytes) b = uint8_t(rng());
  // exponents of all 16-bit floats below that of infinity, wherever in the block they are
  for (size_t i = 1; i < bytes.size(); i += 2) bytes[i] &= 0xbf;
  for (size_t i = 0; i < bytes.size(); i += 2)
    bytes[i] &= type == QType::F16 || type == QType::BF16 ? 0xff : 0xbf;
  return bytes;
}

std::vector<float> run_linear(const Kernels* k, QType type, const std::vector<uint8_t>& bytes,
                              int64_t n, int64_t width, const std::vector<float>& x, int64_t cols,
                              int threads) {
  Context c(threads, k);
  Matrix m{};
  m.type = type;
  m.n = n;
  m.k = width;
  c.pack(m, bytes.data(), -1, 0);
  std::vector<float> out(size_t(cols * n));
  c.linear(x.data(), width, cols, {{&m, nullptr, nullptr, out.data(), n, Epilogue::Store}});
  return out;
}

void check_linear(const std::vector<const Kernels*>& levels) {
  for (int t = 0; t < int(QType::kCount); ++t) {
    const QType type = QType(t);
    const int64_t block = std::max(32, quant_layout(type).block);
    const int64_t width = block == 256 ? 512 : 3 * block, n = 37;
    const auto bytes = weights(type, n, width);
    for (int cols : {1, 2, 3, 5, 8, 13, 43}) {
      const auto x = floats(size_t(cols * width));
      const auto want = run_linear(levels[0], type, bytes, n, width, x, cols, 1);
      for (const Kernels* k : levels) {
        const auto got = run_linear(k, type, bytes, n, width, x, cols, 2);
        // BF16 activations are rounded where the level multiplies them
        const double allowed = type == QType::BF16 && k->bf16_acts ? 2e-2 : 1e-5;
        expect(error(got, want), allowed, "linear", k->name, t, cols);
        // one column at a time: the same bits
        for (int c = 0; c < cols; c += 4) {
          const std::vector<float> one(x.begin() + c * width, x.begin() + (c + 1) * width);
          const auto alone = run_linear(k, type, bytes, n, width, one, 1, 1);
          expect(std::memcmp(alone.data(), got.data() + c * n, size_t(n) * 4) != 0, 0.0, "row bits",
                 k->name, t, cols);
        }
        // rows back to floats
        Context context(1, k);
        Matrix m{};
        m.type = type;
        m.n = n;
        m.k = width;
        context.pack(m, bytes.data(), -1, 0);
        std::vector<float> row(size_t(width), 0.0f), base(size_t(width), 0.0f);
        const int32_t id = 17;
        context.embed(m, &id, 1, row.data(), width);
        levels[0]->dequant_row(m, id, base.data());
        expect(error(row, base), 0.0, "embed", k->name, t, 0);
      }
    }
  }
}

struct Cache {  // one layer, its tokens in blocks out of order
  static constexpr int kTokens = 91, kBlock = 16, kBlocks = 8;
  std::vector<int32_t> table, slots;
  PageBlock k, v, k_scale, v_scale;
  KVLayer layer;

  Cache(KVType type, int heads, int key_dim, int value_dim) : table(kBlocks), slots(kTokens) {
    for (int i = 0; i < kBlocks; ++i) table[i] = (i * 3) % kBlocks;
    for (int i = 0; i < kTokens; ++i) slots[i] = table[i / kBlock] * kBlock + i % kBlock;
    const size_t elem = type == KVType::F32 ? 4 : type == KVType::Q8_0 ? 1 : 2;
    const size_t rows = size_t(kBlocks) * kBlock * heads;
    k = PageBlock(rows * key_dim * elem + 64);
    v = PageBlock(rows * value_dim * elem + 64);
    k_scale = PageBlock(rows * key_dim / 16 + 64);
    v_scale = PageBlock(rows * value_dim / 16 + 64);
    layer = {type,
             heads,
             key_dim,
             value_dim,
             kBlock,
             kBlocks,
             k.data(),
             v.data(),
             reinterpret_cast<uint16_t*>(k_scale.data()),
             reinterpret_cast<uint16_t*>(v_scale.data())};
  }
};

struct Kind {
  int heads, kv_heads, key_dim, stored, value_dim;  // stored 0: values are part of the keys
  int window, chunk;
  float softcap;
  bool sinks, selected;
};

void check_attention_kind(const std::vector<const Kernels*>& levels, KVType type, const Kind& a) {
  const int n = Cache::kTokens;
  const auto k = floats(size_t(n) * a.kv_heads * a.key_dim),
             v = floats(size_t(n) * a.kv_heads * a.stored),
             q = floats(size_t(n) * a.heads * a.key_dim), sinks = floats(size_t(a.heads));
  std::vector<uint64_t> bits(size_t(n) * 2);
  for (int i = 0; i < n; ++i) {  // a stretch that nobody selects, and one key that everybody does
    bits[2 * i] = (uint64_t(rng()) << 32 | rng()) & 0xffff00000000ffffull;
    bits[2 * i + 1] = uint64_t(rng()) << 32 | rng();
    bits[2 * i + (i >= 64)] |= uint64_t(1) << (i % 64);
  }
  std::vector<float> want;
  for (const Kernels* level : levels) {
    Cache cache(type, a.kv_heads, a.key_dim, a.stored);
    Context c(2, level);
    c.write_kv(cache.layer, cache.slots.data(), n, k.data(), a.kv_heads * a.key_dim,
               a.stored ? v.data() : nullptr, a.kv_heads * a.stored);
    AttentionTask t{};
    t.kv = &cache.layer;
    t.q = q.data();
    t.ldq = a.heads * a.key_dim;
    t.ldo = a.heads * a.value_dim;
    t.num_heads = a.heads;
    t.value_dim = a.value_dim;
    t.scale = 1.0f / std::sqrt(float(a.key_dim));
    t.window = a.window;
    t.chunk = a.chunk;
    t.softcap = a.softcap;
    t.sinks = a.sinks ? sinks.data() : nullptr;
    t.selected = a.selected ? bits.data() : nullptr;
    t.lds = 2;
    std::vector<float> out(size_t(n * t.ldo));
    t.out = out.data();
    c.attention(t, {{0, n, n, cache.table.data()}});
    if (level == levels[0]) want = out;
    expect(error(out, want), 2e-5, "attention", level->name, int(type), a.key_dim);
    std::vector<float> last(size_t(t.ldo));  // the last row alone: the same bits
    t.q = q.data() + (n - 1) * t.ldq;
    t.out = last.data();
    if (t.selected) t.selected += 2 * (n - 1);
    c.attention(t, {{0, 1, n, cache.table.data()}});
    expect(std::memcmp(last.data(), out.data() + (n - 1) * t.ldo, last.size() * 4) != 0, 0.0,
           "attention bits", level->name, int(type), a.key_dim);
    // the last three rows as sequences of their own that read the same blocks
    std::vector<float> three(size_t(3 * t.ldo));
    t.q = q.data() + (n - 3) * t.ldq;
    t.out = three.data();
    if (t.selected) t.selected -= 2 * 2;
    const int32_t* table = cache.table.data();
    c.attention(t, {{0, 1, n - 2, table}, {1, 1, n - 1, table}, {2, 1, n, table}});
    expect(std::memcmp(three.data(), out.data() + (n - 3) * t.ldo, three.size() * 4) != 0, 0.0,
           "attention of sequences alike", level->name, int(type), a.key_dim);
  }
}

void check_attention(const std::vector<const Kernels*>& levels) {
  std::vector<Kind> kinds;
  for (int dim : {32, 64, 96, 128, 512}) {
    kinds.push_back({6, 2, dim, dim, dim, 0, 0, 0.0f, false, false});
    kinds.push_back({6, 2, dim, dim, dim, 20, 0, 5.0f, true, false});
  }
  kinds.push_back({4, 1, 192, 128, 128, 0, 24, 0.0f, true, false});
  kinds.push_back({40, 1, 576, 0, 512, 0, 0, 0.0f, false, true});
  kinds.push_back({3, 1, 96, 0, 57, 33, 40, 0.0f, true, true});
  for (int type = 0; type < 4; ++type)
    for (const Kind& a : kinds) check_attention_kind(levels, KVType(type), a);
}

void check_search(const std::vector<const Kernels*>& levels) {
  const int n = Cache::kTokens;
  for (int type = 0; type < 4; ++type)
    for (int heads : {1, 7, 64}) {
      const int dim = 96;
      // whole numbers, stored and multiplied without error: every level must choose the same
      auto k = floats(size_t(n) * dim), q = floats(size_t(n) * heads * dim),
           w = floats(size_t(n) * heads);
      for (auto* x : {&k, &q, &w})
        for (float& f : *x) f = std::round(f * 3.0f);
      for (int i = 0; i < n * dim; i += 32) k[size_t(i)] = 127.0f;  // the steps of q8_0 are then 1
      std::vector<uint64_t> want;
      for (const Kernels* level : levels) {
        Cache cache(KVType(type), 1, dim, 0);
        Context c(2, level);
        c.write_kv(cache.layer, cache.slots.data(), n, k.data(), dim, nullptr, 0);
        std::vector<uint64_t> bits(size_t(n) * 2);
        IndexTask t{};
        t.kv = &cache.layer;
        t.q = q.data();
        t.ldq = heads * dim;
        t.weights = w.data();
        t.ldw = t.heads = heads;
        c.top_keys(t, {{0, n, n, cache.table.data()}}, 20, bits.data(), 2);
        if (level == levels[0]) want = bits;
        int found = 0;
        for (const uint64_t word : bits) found += std::popcount(word);
        expect(found != 20 * n - 19 * 20 / 2 || bits != want, 0.0, "search", level->name, type,
               heads);
      }
    }
}

void check_rows(const std::vector<const Kernels*>& levels) {
  for (int n : {1, 7, 64, 100, 333}) {
    const auto x = floats(size_t(n)), w = floats(size_t(n));
    std::vector<float> want(x.size()), got(x.size());
    levels[0]->rms_norm(x.data(), w.data(), want.data(), n, 1e-5f);
    for (const Kernels* k : levels) {
      k->rms_norm(x.data(), w.data(), got.data(), n, 1e-5f);
      expect(error(got, want), 1e-5, "rms_norm", k->name, n, 0);
    }
    levels[0]->layer_norm(x.data(), w.data(), x.data(), want.data(), n, 1e-5f);
    for (const Kernels* k : levels) {
      k->layer_norm(x.data(), w.data(), x.data(), got.data(), n, 1e-5f);
      expect(error(got, want), 1e-5, "layer_norm", k->name, n, 0);
    }
    for (int kind = int(Pointwise::Silu); kind <= int(Pointwise::Xielu); ++kind) {
      const PointwiseTask task{Pointwise(kind), 0.7f, 1.3f, 0.5f, -1e-6f};
      want = x;
      levels[0]->activate(task, want.data(), n);
      for (const Kernels* k : levels) {
        got = x;
        k->activate(task, got.data(), n);
        expect(error(got, want), 1e-5, "activate", k->name, n, kind);
      }
    }
  }
}

}  // namespace

int main() {
  const auto levels = available_kernels();
  for (const Kernels* k : levels) std::printf("level %s, %d lanes\n", k->name, k->lanes);
  check_linear(levels);
  check_attention(levels);
  check_search(levels);
  check_rows(levels);
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures ? 1 : 0;
}
