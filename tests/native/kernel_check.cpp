// SPDX-License-Identifier: Apache-2.0
// Every kernel level this processor runs, against the baseline level: for machines where the
// Python tests cannot go (aarch64 under qemu) and for the sanitizers, which like a plain program.
// Exits with 1 and says what differed.
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
    const int64_t width = quant_layout(type).block == 256 ? 512 : 96, n = 37;
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

void check_attention(const std::vector<const Kernels*>& levels) {
  for (int type = 0; type < 4; ++type)
    for (int dim : {32, 64, 96, 128}) {
      const int kv_heads = 2, heads = 6, tokens = 91, block = 16, blocks = 8;
      const int64_t elem = type == 0 ? 4 : type == 3 ? 1 : 2;
      const auto k = floats(size_t(tokens) * kv_heads * dim),
                 v = floats(size_t(tokens) * kv_heads * dim);
      const auto q = floats(size_t(tokens) * heads * dim);
      std::vector<int32_t> slots(tokens), table(blocks);
      for (int i = 0; i < blocks; ++i) table[i] = (i * 3) % blocks;
      for (int i = 0; i < tokens; ++i) slots[i] = table[i / block] * block + i % block;
      std::vector<float> want;
      for (const Kernels* level : levels) {
        const size_t cells = size_t(blocks) * block * kv_heads * dim;
        PageBlock keys(cells * elem + 64), values(cells * elem + 64), ks(cells / 16 + 64),
            vs(cells / 16 + 64);
        KVLayer kv{KVType(type),
                   kv_heads,
                   dim,
                   dim,
                   block,
                   blocks,
                   keys.data(),
                   values.data(),
                   reinterpret_cast<uint16_t*>(ks.data()),
                   reinterpret_cast<uint16_t*>(vs.data())};
        Context c(2, level);
        c.write_kv(kv, slots.data(), tokens, k.data(), kv_heads * dim, v.data(), kv_heads * dim);
        for (int window : {0, 20}) {
          AttentionTask t{};
          t.kv = &kv;
          t.q = q.data();
          t.ldq = t.ldo = heads * dim;
          t.num_heads = heads;
          t.scale = 1.0f / std::sqrt(float(dim));
          t.window = window;
          t.softcap = window ? 5.0f : 0.0f;
          std::vector<float> out(q.size());
          t.out = out.data();
          c.attention(t, {{0, tokens, tokens, table.data()}});
          if (level == levels[0]) want.insert(want.end(), out.begin(), out.end());
          const size_t at = window ? q.size() : 0;
          expect(error(out, {want.begin() + at, want.begin() + at + q.size()}), 2e-5, "attention",
                 level->name, type, dim);
          std::vector<float> last(size_t(heads) * dim);  // the last row alone: the same bits
          t.q = q.data() + (tokens - 1) * heads * dim;
          t.out = last.data();
          c.attention(t, {{0, 1, tokens, table.data()}});
          expect(std::memcmp(last.data(), out.data() + (tokens - 1) * heads * dim,
                             last.size() * 4) != 0,
                 0.0, "attention bits", level->name, type, dim);
        }
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
  check_rows(levels);
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures ? 1 : 0;
}
