// SPDX-License-Identifier: Apache-2.0
// What this machine can do, and whether its kernels are right: asked by the backend when it is
// opened and by the benchmarks, never on the way of a request.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "ops.h"

namespace freehold {

bool Context::self_check() {
  if (kernels_ == kernels_baseline()) return true;
  Context here(1, kernels_), base(1, kernels_baseline());
  uint32_t state = 12345;
  const auto next = [&] { return state = state * 1664525u + 1013904223u; };
  constexpr int64_t n = 16, k = 512, cols = 5;
  std::vector<float> x(size_t(cols * k));
  for (float& v : x) v = float(int(next() >> 16) % 201 - 100) * 0.01f;
  for (int type = 0; type < int(QType::kCount); ++type) {
    const QuantLayout& q = quant_layout(QType(type));
    std::vector<uint8_t> bytes(size_t(n * (k / q.block) * q.bytes));
    for (uint8_t& b : bytes)
      b = uint8_t(next() >> 24) & 0x3f;  // any field read as a float is small
    std::vector<float> out[2];
    for (int side = 0; side < 2; ++side) {
      Context& c = side ? base : here;
      Matrix m{};
      m.type = QType(type);
      m.n = n;
      m.k = k;
      c.pack(m, bytes.data(), -1, 0);
      out[side].resize(size_t(cols * n));
      c.linear(x.data(), k, cols, {{&m, nullptr, nullptr, out[side].data(), n, Epilogue::Store}});
    }
    double worst = 0.0, top = 0.0;
    for (size_t i = 0; i < out[0].size(); ++i) {
      const double d = double(out[0][i]) - out[1][i];
      worst = std::max(worst, d < 0 ? -d : d);
      top = std::max(top, double(out[1][i] < 0 ? -out[1][i] : out[1][i]));
    }
    const double allowed = QType(type) == QType::BF16 && kernels_->bf16_acts ? 2e-2 : 1e-4;
    if (!(worst <= allowed * top)) return false;
  }
  return true;
}

// ---- the machine's limits -----------------------------------------------------------------------

double Context::read_gbps(int64_t bytes) {
  PageBlock block{size_t(bytes)};
  const int64_t step = int64_t(4) << 20, tasks = bytes / step;
  pool_.run(tasks, [&](int64_t i, int) { std::memset(block.data() + i * step, 1, size_t(step)); });
  std::atomic<uint64_t> sink{0};
  double best = 0.0;
  for (int round = 0; round < 5; ++round) {
    const auto t0 = std::chrono::steady_clock::now();
    pool_.run(tasks,
              [&](int64_t i, int) { sink += kernels_->read_sum(block.data() + i * step, step); });
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count();
    best = std::max(best, double(tasks * step) / s * 1e-9);
  }
  return best;
}

double Context::int8_gops(double seconds) {
  int64_t iters = 1 << 16;
  double best = 0.0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  do {
    std::vector<double> ops(size_t(threads()), 0.0);
    const auto t0 = std::chrono::steady_clock::now();
    pool_.run(threads() * 4,
              [&](int64_t, int thread) { ops[size_t(thread)] += kernels_->int8_peak(iters); });
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count();
    double total = 0.0;
    for (double o : ops) total += o;
    best = std::max(best, total / s * 1e-9);
    if (s < 0.005) iters *= 2;
  } while (std::chrono::steady_clock::now() < end);
  return best;
}

}  // namespace freehold
