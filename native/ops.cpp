// SPDX-License-Identifier: Apache-2.0
#include "ops.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "acts.h"

namespace freehold {
namespace {

int64_t round_up(int64_t x, int64_t to) {
  return (x + to - 1) / to * to;
}
int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Bytes of unpacked weights a thread works on: half of a common second-level cache.
constexpr int64_t kPanelBudget = 512 << 10;

// The stored word that goes to each packed place: the order in which isa/quants.inl reads them.
void word_order(QType type, uint8_t order[64]) {
  int n = 0;
  const auto put = [&](int first, int count) {
    for (int i = 0; i < count; ++i) order[n++] = uint8_t(first + i);
  };
  const auto zip = [&](int a, int b) {
    for (int i = 0; i < 8; ++i) {
      put(a + i, 1);
      put(b + i, 1);
    }
  };
  switch (type) {
    case QType::Q2_K:
      put(20, 1), put(0, 20);
      break;
    case QType::Q3_K:
      put(24, 3), zip(8, 0), put(16, 8);
      break;
    case QType::Q5_K:
      put(0, 4), zip(12, 4), put(20, 24);
      break;
    case QType::Q6_K:
      put(48, 4);
      for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 8; ++i)
          put(16 * half + i, 1), put(16 * half + 8 + i, 1), put(32 + 8 * half + i, 1);
      break;
    case QType::IQ1_S:
      put(8, 4), put(0, 8);
      break;
    case QType::IQ1_M:
      put(12, 2), put(8, 4), put(0, 8);
      break;
    case QType::IQ2_XS:
      put(16, 2), put(0, 16);
      break;
    case QType::IQ2_S:
      put(16, 4), zip(0, 8);
      break;
    case QType::IQ3_XXS:
      for (int i = 0; i < 8; ++i) put(2 * i, 2), put(16 + i, 1);
      break;
    case QType::IQ3_S:
      put(26, 1), put(16, 2);
      for (int i = 0; i < 8; ++i) put(2 * i, 2), put(18 + i, 1);
      break;
    default:
      put(0, quant_layout(type).words);
  }
}

// 16 rows of `row_bytes` each (fewer real ones at the end) into one packed group.
void pack_group(const Matrix& m, const uint8_t* src, int64_t row_bytes, int rows, uint8_t* dst) {
  if (m.type == QType::F16) {
    for (int64_t i = 0; i < m.k; ++i)
      for (int r = 0; r < rows; ++r)
        std::memcpy(dst + i * 32 + r * 2, src + r * row_bytes + i * 2, 2);
    return;
  }
  if (m.type == QType::BF16) {  // pairs
    for (int64_t i = 0; i < m.k; i += 2)
      for (int r = 0; r < rows; ++r)
        std::memcpy(dst + (i / 2) * 64 + r * 4, src + r * row_bytes + i * 2, i + 1 < m.k ? 4 : 2);
    return;
  }
  const QuantLayout& q = quant_layout(m.type);
  uint8_t order[64];
  word_order(m.type, order);
  for (int64_t b = 0; b < m.blocks; ++b) {
    const uint8_t* block = src + b * q.bytes;
    if (q.head_bytes) {
      const int place = int(b % q.head_blocks()), size = q.head_bytes;
      if (place == 0) dst += 64;  // the heads of this block and those that follow
      uint8_t* head = dst - 64 * (place * q.words + 1) + place * kGroupRows * size;
      for (int r = 0; r < rows; ++r)
        std::memcpy(head + r * size, block + r * row_bytes + q.head_off, size_t(size));
    }
    block += q.word_off;
    for (int w = 0; w < q.words; ++w, dst += 64)
      for (int r = 0; r < rows; ++r)
        std::memcpy(dst + r * 4, block + r * row_bytes + 4 * order[w], 4);
  }
}

bool read_fully(int fd, uint8_t* out, int64_t bytes, int64_t offset) {
  while (bytes > 0) {
    const ssize_t n = pread(fd, out, size_t(bytes), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    out += n;
    offset += n;
    bytes -= n;
  }
  return true;
}

int init_id(QType t, bool full_u8) {
  switch (t) {
    case QType::Q3_K:
      return kInit16x4;
    case QType::Q6_K:
      return kInit16x32;
    case QType::Q4_0:
      return kInit32x8;
    case QType::Q5_0:
      return kInit32x16;
    case QType::Q1_0:
    case QType::Q2_0:
      return kInit32x1;
    case QType::TQ1_0:
    case QType::TQ2_0:
      return kInit256x1;
    case QType::MXFP4:
    case QType::IQ1_S:
    case QType::IQ2_XXS:
    case QType::IQ3_XXS:
    case QType::IQ3_S:
      return kInit32x64;
    case QType::NVFP4:
    case QType::IQ1_M:
    case QType::IQ2_XS:
    case QType::IQ2_S:
      return kInit16x64;
    case QType::Q8_0:
    case QType::IQ4_NL:
    case QType::IQ4_XS:
      return full_u8 ? int(kInit32x128) : -1;
    default:
      return -1;
  }
}

}  // namespace

ActKind act_kind(QType type, const Kernels& k) {
  switch (type) {
    case QType::F32:
    case QType::F16:
      return ActKind::F32;
    case QType::BF16:
      return k.bf16_acts ? ActKind::BF16 : ActKind::F32;
    default:
      return quant_layout(type).block == 256 ? ActKind::I8x256 : ActKind::I8x32;
  }
}

bool Context::pack(Matrix& m, const uint8_t* bytes, int fd, int64_t offset) {
  const QuantLayout& q = quant_layout(m.type);
  m.groups = ceil_div(m.n, kGroupRows);
  m.blocks = m.k / q.block;
  if (m.type == QType::F16)
    m.group_bytes = round_up(m.k * 32, 64);
  else if (m.type == QType::BF16)
    m.group_bytes = ceil_div(m.k, 2) * 64;
  else
    m.group_bytes =
        (m.blocks * q.words + (q.head_bytes ? ceil_div(m.blocks, q.head_blocks()) : 0)) * 64;
  uint8_t* packed = arena_.allocate(size_t(m.groups * m.group_bytes));
  m.data = packed;

  const int64_t row_bytes = m.blocks * q.bytes;
  const int64_t step = std::max<int64_t>(1, (int64_t(1) << 20) / (row_bytes * kGroupRows));
  const int64_t tasks = ceil_div(m.groups, step);
  const int64_t buffer = step * kGroupRows * row_bytes;
  uint8_t* buffers = bytes ? nullptr : thread_scratch_.get(size_t(buffer * threads()));
  std::atomic<bool> ok{true};
  pool_.run(tasks, [&](int64_t task, int thread) {
    const int64_t g0 = task * step, g1 = std::min(g0 + step, m.groups);
    const int64_t first = g0 * kGroupRows, rows = std::min(g1 * kGroupRows, m.n) - first;
    const uint8_t* src = bytes ? bytes + first * row_bytes : buffers + thread * buffer;
    if (!bytes &&
        !read_fully(fd, buffers + thread * buffer, rows * row_bytes, offset + first * row_bytes)) {
      ok = false;
      return;
    }
    for (int64_t g = g0; g < g1; ++g)
      pack_group(m, src + (g - g0) * kGroupRows * row_bytes, row_bytes,
                 int(std::min<int64_t>(kGroupRows, m.n - g * kGroupRows)),
                 packed + g * m.group_bytes);
  });
  return ok;
}

// ---- linear -------------------------------------------------------------------------------------

QuantizeTask Context::plan(ActKind kind, int64_t cols, int64_t k,
                           const std::vector<const Matrix*>& weights, Acts& a, int width) const {
  a = Acts{};
  a.kind = kind;
  a.k = k;
  a.cols = int(cols);
  a.cb = width > 0 ? width : kernels_->col_block(int(cols));
  a.nblk = int(ceil_div(cols, a.cb));
  a.last_cb = kernels_->pad_cols(int(cols - int64_t(a.nblk - 1) * a.cb));
  QuantizeTask t{};
  t.acts = &a;
  for (const Matrix* w : weights) {
    if (act_kind(w->type, *kernels_) != kind) continue;
    const int id = init_id(w->type, kernels_->full_u8);
    if (id >= 0) t.need_init[id] = true;
    t.need_sum16 |= w->type == QType::Q2_K;
    t.need_sum32 |= w->type == QType::Q4_K || w->type == QType::Q5_K;
    t.need_fsum |= w->type == QType::Q4_1 || w->type == QType::Q5_1;
  }
  return t;
}

Acts* Context::prepare(ActKind kind, const float* x, int64_t ldx, int64_t cols, int64_t k,
                       const std::vector<Linear>& layers) {
  Acts& a = acts_[int(kind)];
  std::vector<const Matrix*> weights;
  for (const Linear& l : layers)
    for (const Matrix* w : {l.w, l.up})
      if (w) weights.push_back(w);
  QuantizeTask t = plan(kind, cols, k, weights, a);
  t.x = x;
  t.ldx = ldx;
  lay_out(t, a, act_scratch_[int(kind)].get(size_t(lay_out(t, a, nullptr))));
  if (cols * k < kSmallWork) {
    for (int b = 0; b < a.nblk; ++b) kernels_->quantize(t, b);
  } else {
    pool_.run(a.nblk, [&](int64_t b, int) { kernels_->quantize(t, int(b)); });
  }
  return &a;
}

void Context::linear(const float* x, int64_t ldx, int64_t cols, const std::vector<Linear>& layers) {
  if (cols == 0 || layers.empty()) return;
  const int64_t k = layers[0].w->k;
  Acts* acts[int(ActKind::kCount)] = {};
  for (const Linear& l : layers)
    for (const Matrix* w : {l.w, l.up}) {
      if (!w) continue;
      const ActKind kind = act_kind(w->type, *kernels_);
      if (!acts[int(kind)]) acts[int(kind)] = prepare(kind, x, ldx, cols, k, layers);
    }
  std::vector<LinearTask> jobs;
  for (const Linear& l : layers) {
    LinearTask job{};
    job.w[0] = l.w;
    job.w[1] = l.up;
    job.acts[0] = acts[int(act_kind(l.w->type, *kernels_))];
    if (l.up) job.acts[1] = acts[int(act_kind(l.up->type, *kernels_))];
    job.bias[0] = l.bias;
    job.bias[1] = l.up_bias;
    job.limit = l.limit;
    job.out = l.out;
    job.ldo = l.ldo;
    job.epilogue = l.epilogue;
    jobs.push_back(job);
  }
  run(jobs);
}

void Context::run(const std::vector<LinearTask>& jobs) {
  struct Chunk {
    const LinearTask* job;
    bool panel;
    int64_t g0, g1;
  };
  std::vector<Chunk> chunks;
  // What a group costs: its columns, but for few the reading of it, which is the same for all.
  const auto cost = [](const LinearTask& j) { return std::max<int64_t>(j.acts[0]->cols, 8); };
  int64_t left = 0, panel_bytes = 0;  // left: the cost of what is not handed out yet
  for (const LinearTask& job : jobs) left += job.w[0]->groups * cost(job);
  for (const LinearTask& job : jobs) {
    const bool gated = job.epilogue != Epilogue::Store;
    const Matrix& w = *job.w[0];
    const int64_t b0 = kernels_->panel_bytes(w), b1 = gated ? kernels_->panel_bytes(*job.w[1]) : 0;
    const int direct = std::min(kernels_->direct_max_cols(w.type),
                                kernels_->direct_max_cols(job.w[gated ? 1 : 0]->type));
    const bool panel = job.acts[0]->cols > direct && b0 > 0 && (!gated || b1 > 0);
    const int64_t most = panel ? std::clamp<int64_t>(kPanelBudget / (b0 + b1), 1, 8) : 64;
    if (panel) panel_bytes = std::max(panel_bytes, most * (b0 + b1));
    // Long stretches first, which the prefetchers like, ever shorter ones towards the end, so that
    // the threads finish together.
    for (int64_t g = 0; g < w.groups;) {
      const int64_t share = left / (threads() * 2 * cost(job));
      const int64_t n = std::min(std::clamp<int64_t>(share, 1, most), w.groups - g);
      chunks.push_back({&job, panel, g, g + n});
      g += n;
      left -= n * cost(job);
    }
  }
  panel_bytes = round_up(panel_bytes, 4096);
  uint8_t* panels = panel_bytes ? thread_scratch_.get(size_t(panel_bytes * threads())) : nullptr;
  pool_.run(int64_t(chunks.size()), [&](int64_t i, int thread) {
    const Chunk& c = chunks[size_t(i)];
    kernels_->linear(*c.job, c.g0, c.g1, panels + (panels ? panel_bytes * thread : 0), c.panel);
  });
}

void Context::linear_heads(const float* x, int64_t ldx, int64_t head, int64_t cols,
                           const std::vector<const Matrix*>& weights, float* out, int64_t ldo) {
  if (cols == 0 || weights.empty()) return;
  const int64_t k = weights[0]->k, n = weights[0]->n, beyond = head - k;
  // A head is one task: it has activations of its own, so nothing is shared between heads.
  const auto many = [&](const Matrix& w) {
    return cols > kernels_->direct_max_cols(w.type) && kernels_->panel_bytes(w) > 0;
  };
  int64_t act_bytes = 0, panel_bytes = 0;
  for (const Matrix* w : weights) {
    Acts a;
    const QuantizeTask t = plan(act_kind(w->type, *kernels_), cols, k, {w}, a);
    act_bytes = std::max(act_bytes, lay_out(t, a, nullptr));
    if (many(*w)) panel_bytes = std::max(panel_bytes, kernels_->panel_bytes(*w));
  }
  act_bytes = round_up(act_bytes, 4096);
  // A panel of one group may be larger than the budget.
  const int64_t most = panel_bytes ? std::clamp<int64_t>(kPanelBudget / panel_bytes, 1, 8) : 64;
  panel_bytes = round_up(panel_bytes * most, 4096);
  uint8_t* scratch = thread_scratch_.get(size_t((act_bytes + panel_bytes) * threads()));
  const auto one = [&](int64_t h, int thread) {
    uint8_t* mine = scratch + (act_bytes + panel_bytes) * thread;
    const Matrix& w = *weights[size_t(h)];
    Acts a;
    QuantizeTask t = plan(act_kind(w.type, *kernels_), cols, k, {&w}, a);
    t.x = x + h * head;
    t.ldx = ldx;
    lay_out(t, a, mine);
    for (int b = 0; b < a.nblk; ++b) kernels_->quantize(t, b);
    LinearTask job{};
    job.w[0] = &w;
    job.acts[0] = &a;
    job.out = out + h * (n + beyond);
    job.ldo = ldo;
    const bool panel = many(w);
    const int64_t step = panel ? most : w.groups;
    for (int64_t g = 0; g < w.groups; g += step)
      kernels_->linear(job, g, std::min(g + step, w.groups), mine + act_bytes, panel);
    if (beyond > 0)
      for (int64_t c = 0; c < cols; ++c)
        std::memcpy(job.out + c * ldo + n, t.x + c * ldx + k, size_t(beyond) * sizeof(float));
  };
  if (int64_t(weights.size()) * cols * k < kSmallWork) {
    for (size_t h = 0; h < weights.size(); ++h) one(int64_t(h), 0);
  } else {
    pool_.run(int64_t(weights.size()), one);
  }
}

// ---- the rest -----------------------------------------------------------------------------------

template <class Fn>
void Context::for_rows(int64_t rows, int64_t work_per_row, Fn&& fn) {
  if (rows * work_per_row < kSmallWork || threads() == 1) {
    for (int64_t r = 0; r < rows; ++r) fn(r);
    return;
  }
  const int64_t step = std::max<int64_t>(1, rows / (threads() * 8));
  pool_.run(ceil_div(rows, step), [&](int64_t task, int) {
    for (int64_t r = task * step; r < std::min(rows, (task + 1) * step); ++r) fn(r);
  });
}

void Context::embed(const Matrix& table, const int32_t* ids, int64_t count, float* out,
                    int64_t ldo) {
  for_rows(count, table.k * 8,
           [&](int64_t i) { kernels_->dequant_row(table, ids[i], out + i * ldo); });
}

void Context::rms_norm(float* residual, int64_t ldr, const float* x, int64_t ldx, const float* w,
                       int64_t width, int64_t rows, int64_t heads, float eps, float* out,
                       int64_t ldo) {
  for_rows(rows, width * heads, [&](int64_t r) {
    const float* src = x + r * ldx;
    if (residual) {
      kernels_->add(residual + r * ldr, src, width * heads);
      src = residual + r * ldr;
    }
    for (int64_t h = 0; h < heads; ++h)
      kernels_->rms_norm(src + h * width, w, out + r * ldo + h * width, width, eps);
  });
}

void Context::layer_norm(const float* x, int64_t ldx, const float* w, const float* b, int64_t width,
                         int64_t rows, float eps, float* out, int64_t ldo) {
  for_rows(rows, width,
           [&](int64_t r) { kernels_->layer_norm(x + r * ldx, w, b, out + r * ldo, width, eps); });
}

void Context::activate(const PointwiseTask& task, float* x, int64_t ldx, int64_t width,
                       int64_t rows) {
  for_rows(rows, width * 8, [&](int64_t r) { kernels_->activate(task, x + r * ldx, width); });
}

void Context::sparse_gate(float* x, int64_t ldx, int64_t width, int64_t rows, float deviations) {
  for_rows(rows, width * 2,
           [&](int64_t r) { kernels_->sparse_gate(x + r * ldx, width, deviations); });
}

void Context::mix_streams(const std::vector<Rows>& streams, const float* weights, int64_t ldw,
                          const std::vector<Rows>& results, int64_t width, int64_t rows) {
  const int64_t count = int64_t(streams.size()), made = int64_t(results.size());
  for_rows(rows, width * count * made / 4, [&](int64_t r) {
    const float* in[kMaxStreams];
    float* out[kMaxStreams];
    for (int64_t s = 0; s < count; ++s) in[s] = streams[s].data + r * streams[s].stride;
    for (int64_t s = 0; s < made; ++s) out[s] = results[s].data + r * results[s].stride;
    kernels_->mix_streams(in, count, weights + r * ldw, out, made, width);
  });
}

void Context::rope(float* x, int64_t ldx, int64_t rows, int64_t heads, int64_t head_dim,
                   const float* cos, const float* sin, int64_t half, bool interleaved) {
  for_rows(rows, heads * head_dim, [&](int64_t r) {
    kernels_->rope(x + r * ldx, cos + r * half, sin + r * half, heads, head_dim, half, interleaved);
  });
}

void Context::write_kv(const KVLayer& kv, const int32_t* slots, int64_t rows, const float* k,
                       int64_t ldk, const float* v, int64_t ldv) {
  for_rows(rows, int64_t(kv.num_kv_heads) * (kv.key_dim + kv.value_dim), [&](int64_t r) {
    kernels_->write_kv(kv, slots[r], k + r * ldk, v ? v + r * ldv : nullptr);
  });
}

}  // namespace freehold
