// SPDX-License-Identifier: Apache-2.0
// Python's view of matrices; module_rows.cpp has that of rows no matrix is multiplied with, and
// module_cache.cpp the cache's. In these three files alone every number from outside is checked
// against the arrays it describes; behind them sizes are trusted.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "bindings.h"
#include "dispatch.h"

using namespace freehold;

namespace freehold {
PyObject* g_invalid = nullptr;
}

namespace {

const char* const kTypeNames[] = {
    "F32",   "F16",   "BF16",  "Q8_0",    "Q4_0",   "Q4_1",  "Q5_0",    "Q5_1", "Q2_K", "Q3_K",
    "Q4_K",  "Q5_K",  "Q6_K",  "IQ4_NL",  "IQ4_XS", "MXFP4", "NVFP4",   "Q1_0", "Q2_0", "TQ1_0",
    "TQ2_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"};
static_assert(sizeof kTypeNames / sizeof *kTypeNames == size_t(QType::kCount));

QType type_of(const std::string& name) {
  for (int i = 0; i < int(QType::kCount); ++i)
    if (name == kTypeNames[i]) return QType(i);
  refuse("unknown weight type");
}

Epilogue epilogue_of(const std::string& name) {
  if (name == "silu") return Epilogue::Silu;
  if (name == "gelu_tanh") return Epilogue::GeluTanh;
  if (name == "gelu") return Epilogue::Gelu;
  if (name == "swiglu_oai") return Epilogue::SwigluOai;
  refuse("unknown activation");
}

float limit_of(float limit, Epilogue e) {
  need(limit >= 0.0f, "a limit must not be negative");
  if (limit > 0.0f) return limit;
  return e == Epilogue::SwigluOai ? 7.0f : kNoLimit;
}

const float* bias_of(const std::optional<Floats1>& bias, const Matrix& w) {
  if (!bias) return nullptr;
  need(int64_t(bias->shape(0)) == w.n, "bias length does not match the weight");
  return bias->data();
}

const Kernels* kernels_named(const std::optional<std::string>& isa) {
  const auto levels = available_kernels();
  if (!isa) return levels.back();
  for (const Kernels* k : levels)
    if (*isa == k->name) return k;
  refuse("this processor or build has no such kernel level");
}

Matrix shape_of(const std::string& type, int64_t n, int64_t k) {
  need(n > 0 && k > 0 && n < kMaxDim && k < kMaxDim && n <= kMaxElements / k,
       "matrix dimensions out of range");
  Matrix m{};
  m.type = type_of(type);
  m.n = n;
  m.k = k;
  need(k % quant_layout(m.type).block == 0, "row length is no multiple of the block size");
  return m;
}

Matrix pack_bytes(Context& c, const std::string& type, int64_t n, int64_t k, const Bytes& src) {
  Matrix m = shape_of(type, n, k);
  const QuantLayout& q = quant_layout(m.type);
  need(int64_t(src.shape(0)) == n * (k / q.block) * q.bytes, "byte count does not match the shape");
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.pack(m, src.data(), -1, 0);
  return m;
}

Matrix pack_file(Context& c, const std::string& type, int64_t n, int64_t k, const std::string& path,
                 int64_t offset) {
  Matrix m = shape_of(type, n, k);
  need(offset >= 0, "negative file offset");
  bool ok = false;
  {
    nb::gil_scoped_release nogil;
    std::lock_guard<std::mutex> lock(c.mutex());
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
      ok = c.pack(m, nullptr, fd, offset);
      close(fd);
    }
  }
  if (!ok) {
    PyErr_SetString(PyExc_OSError, "the file ended early or could not be read");
    throw nb::python_error();
  }
  return m;
}

void linear(Context& c, const Floats2& x, const std::vector<const Matrix*>& weights,
            const std::vector<std::optional<Floats1>>& biases, const std::vector<FloatsOut>& outs) {
  const size_t count = weights.size();
  need(count > 0 && outs.size() == count && biases.size() == count,
       "one bias and output per weight");
  const int64_t cols = int64_t(x.shape(0)), k = weights[0]->k;
  const float* data = rows_of(x, k, "input width does not match the weight");
  std::vector<Context::Linear> layers;
  for (size_t i = 0; i < count; ++i) {
    const Matrix* w = weights[i];
    need(w->k == k, "weights of one call must have the same input width");
    float* out = out_rows(outs[i], cols, w->n, "output shape does not match");
    layers.push_back({w, nullptr, bias_of(biases[i], *w), out, int64_t(outs[i].stride(0))});
  }
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.linear(data, x.stride(0), cols, layers);
}

void linear_heads(Context& c, const Floats2& x, const std::vector<const Matrix*>& weights,
                  const FloatsOut& out) {
  need(!weights.empty() && weights.size() <= 65536, "between 1 and 65536 heads");
  const int64_t count = int64_t(weights.size()), k = weights[0]->k, n = weights[0]->n;
  for (const Matrix* w : weights)
    need(w->k == k && w->n == n, "the matrices of all heads must have one shape");
  const int64_t cols = int64_t(x.shape(0)), width = int64_t(x.shape(1)), head = width / count;
  need(width % count == 0 && head >= k, "the input is no row of heads as wide as the weights");
  const float* data = rows_of(x, width, "rows must be contiguous");
  float* o = out_rows(out, cols, count * (n + head - k), "output shape does not match");
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.linear_heads(data, x.stride(0), head, cols, weights, o, int64_t(out.stride(0)));
}

// A matrix that a Python object has; `alive` keeps it while the lock of the interpreter is off.
const Matrix* matrix_of(const nb::object& owner, const char* part, std::vector<nb::object>& alive) {
  alive.push_back(nb::getattr(owner, part, nb::none()));
  const Matrix* w = nullptr;
  need(nb::try_cast<const Matrix*>(alive.back(), w) && w, "a matrix is missing");
  return w;
}

// `updates` are `ops.RowUpdate`s.
void add_low_rank(Context& c, const Floats2& x, const std::vector<FloatsOut>& outs,
                  const nb::sequence& updates) {
  const int64_t cols = int64_t(x.shape(0)), k = int64_t(x.shape(1));
  const float* data = rows_of(x, k, "rows must be contiguous");
  std::vector<Context::RowUpdate> all;
  std::vector<nb::object> alive;
  std::vector<Ints1> indices;
  indices.reserve(nb::len(updates));
  std::vector<bool> seen(size_t(cols), false);
  for (nb::handle update : updates) {
    Context::RowUpdate u{nullptr, cols, {}};
    const nb::object rows = update.attr("rows"), changes = update.attr("changes");
    if (!rows.is_none()) {
      indices.push_back(nb::cast<Ints1>(rows));
      u.rows = indices.back().data();
      u.count = int64_t(indices.back().shape(0));
    }
    for (int64_t i = 0; i < u.count; ++i) {
      const int64_t row = u.rows ? u.rows[i] : i;
      need(row >= 0 && row < cols, "an update names a row that is not there");
      need(!seen[size_t(row)], "a row must not be in two updates");
      seen[size_t(row)] = true;
    }
    need(nb::len(changes) == outs.size(), "one change, or None, per output");
    for (size_t i = 0; i < outs.size(); ++i) {
      const nb::object change = changes[i];
      if (change.is_none()) continue;
      Context::LowRank l{};
      l.down = matrix_of(change, "down", alive);
      l.up = matrix_of(change, "up", alive);
      l.scale = nb::cast<float>(change.attr("scale"));
      need(l.down->k == k, "input width does not match the weight");
      need(l.up->k == l.down->n, "the halves of a change do not multiply");
      l.out = out_rows(outs[i], cols, l.up->n, "output shape does not match");
      l.ldo = int64_t(outs[i].stride(0));
      u.changes.push_back(l);
    }
    if (u.count > 0 && !u.changes.empty()) all.push_back(u);
  }
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.add_low_rank(data, x.stride(0), all);
}

void gate_up(Context& c, const Floats2& x, const Matrix& gate, const Matrix& up,
             const std::string& activation, const FloatsOut& out, float limit,
             const std::optional<Floats1>& gate_bias, const std::optional<Floats1>& up_bias) {
  need(gate.k == up.k && gate.n == up.n, "gate and up differ in shape");
  const int64_t cols = int64_t(x.shape(0));
  const float* data = rows_of(x, gate.k, "input width does not match the weight");
  float* o = out_rows(out, cols, gate.n, "output shape does not match");
  const Epilogue e = epilogue_of(activation);
  const float* b0 = bias_of(gate_bias, gate);
  const float* b1 = bias_of(up_bias, up);
  limit = limit_of(limit, e);
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.linear(data, x.stride(0), cols, {{&gate, &up, b0, o, int64_t(out.stride(0)), e, b1, limit}});
}

void route(Context& c, const Floats2& logits, bool normalise, double scale, const IntsOut& chosen,
           const FloatsOut& weights) {
  const int64_t tokens = int64_t(logits.shape(0)), experts = int64_t(logits.shape(1));
  const int64_t top_k = int64_t(chosen.shape(1));
  need(top_k > 0 && top_k <= experts && experts < kMaxDim, "more experts chosen than there are");
  need(int64_t(chosen.shape(0)) == tokens, "one row of choices per row of logits");
  const float* data = rows_of(logits, experts, "rows must be contiguous");
  float* w = out_rows(weights, tokens, top_k, "output shape does not match");
  need(tokens <= 1 || weights.stride(0) == top_k, "weights must be contiguous");
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.route(data, logits.stride(0), tokens, experts, top_k, normalise, scale, chosen.data(), w);
}

const float* bias_of(const nb::object& expert, const char* part, const Matrix& w,
                     std::vector<nb::object>& alive) {
  nb::object bias = nb::getattr(expert, part, nb::none());
  if (bias.is_none()) return nullptr;
  Floats1 values;
  need(nb::try_cast<Floats1>(bias, values, false) && int64_t(values.shape(0)) == w.n,
       "bias length does not match the weight");
  alive.push_back(std::move(bias));
  return values.data();
}

void moe(Context& c, const Floats2& x, const nb::sequence& experts, const Ints2& chosen,
         const Floats2c& weights, const std::string& activation, float limit, bool weigh_input,
         const FloatsOut& out) {
  Context::Mixture m{};
  m.tokens = int64_t(x.shape(0));
  m.slots = int64_t(chosen.shape(1));
  need(int64_t(chosen.shape(0)) == m.tokens && int64_t(weights.shape(0)) == m.tokens &&
           int64_t(weights.shape(1)) == m.slots && m.slots > 0,
       "chosen experts and their weights must both be [T, S], one row for each of the input");
  // Those that are used, by place of first use; nothing is asked of the others.
  const int64_t count = int64_t(nb::len(experts));
  std::vector<int32_t> place(size_t(count), -1), picks(size_t(m.tokens * m.slots));
  std::vector<nb::object> alive;
  for (size_t p = 0; p < picks.size(); ++p) {
    const int32_t id = chosen.data()[p];
    if (id < 0 || id >= count)
      refuse(("expert " + std::to_string(id) + " was chosen, but there are " +
              std::to_string(count) + " experts")
                 .c_str());
    if (place[size_t(id)] < 0) {
      place[size_t(id)] = int32_t(m.experts.size());
      const nb::object expert = experts[size_t(id)];
      Context::Expert e{};
      e.gate = matrix_of(expert, "gate", alive);
      e.up = matrix_of(expert, "up", alive);
      e.down = matrix_of(expert, "down", alive);
      e.gate_bias = bias_of(expert, "gate_bias", *e.gate, alive);
      e.up_bias = bias_of(expert, "up_bias", *e.up, alive);
      e.down_bias = bias_of(expert, "down_bias", *e.down, alive);
      const Context::Expert& first = m.experts.empty() ? e : m.experts[0];
      need(e.gate->n == first.gate->n && e.up->n == first.gate->n && e.down->k == first.gate->n &&
               e.gate->k == first.gate->k && e.up->k == first.gate->k && e.down->n == first.gate->k,
           "the matrices of experts differ in shape");
      m.experts.push_back(e);
    }
    picks[p] = place[size_t(id)];
  }
  if (m.tokens == 0) return;
  const int64_t hidden = m.experts[0].gate->k;
  m.x = rows_of(x, hidden, "input width does not match the weight");
  m.ldx = x.stride(0);
  m.chosen = picks.data();
  m.weights = weights.data();
  m.weigh_input = weigh_input;
  m.epilogue = epilogue_of(activation);
  m.limit = limit_of(limit, m.epilogue);
  m.out = out_rows(out, m.tokens, hidden, "output shape does not match");
  m.ldo = out.stride(0);
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.moe(m);
}

void embed(Context& c, const Matrix& table, const Ints1& ids, const FloatsOut& out) {
  const int64_t n = int64_t(ids.shape(0));
  float* o = out_rows(out, n, table.k, "output shape does not match");
  for (int64_t i = 0; i < n; ++i)
    need(ids.data()[i] >= 0 && ids.data()[i] < table.n, "token id outside the embedding table");
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.embed(table, ids.data(), n, o, int64_t(out.stride(0)));
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "freehold's CPU kernels; use freehold.backends.cpu.";
  g_invalid = nb::object(nb::module_::import_("freehold.errors").attr("InvalidParameterError"))
                  .release()
                  .ptr();
  m.def(
      "available_isas",
      [] {
        std::vector<std::string> names;
        for (const Kernels* k : available_kernels()) names.emplace_back(k->name);
        return names;
      },
      "Kernel levels of this build that this processor runs, slowest first.");

  m.def(
      "weight_types",
      [] { return std::vector<std::string>(std::begin(kTypeNames), std::end(kTypeNames)); },
      "Names of the stored types that have kernels.");

  nb::class_<Matrix>(m, "Matrix")
      .def_ro("out_features", &Matrix::n)
      .def_ro("in_features", &Matrix::k)
      .def_prop_ro("qtype", [](const Matrix& w) { return kTypeNames[int(w.type)]; })
      .def_prop_ro("nbytes", [](const Matrix& w) { return w.groups * w.group_bytes; });

  nb::class_<Context> context(m, "Context");
  context
      .def(
          "__init__",
          [](Context* self, int threads, const std::optional<std::string>& isa) {
            need(threads >= 1 && threads <= 1024, "threads must be between 1 and 1024");
            new (self) Context(threads, kernels_named(isa));
          },
          nb::arg("threads"), nb::arg("isa").none())
      .def_prop_ro("isa", [](const Context& c) { return c.kernels().name; })
      .def(
          "self_check",
          [](Context& c) {
            nb::gil_scoped_release nogil;
            std::lock_guard<std::mutex> lock(c.mutex());
            return c.self_check();
          },
          "Whether this level computes what the baseline level computes.")
      .def_prop_ro("threads", &Context::threads)
      .def_prop_ro("weight_bytes", &Context::weight_bytes)
      .def("pack_bytes", &pack_bytes, nb::keep_alive<0, 1>())
      .def("pack_file", &pack_file, nb::keep_alive<0, 1>())
      .def("linear", &linear, nb::arg("x"), nb::arg("weights"), nb::arg("biases"), nb::arg("outs"))
      .def("linear_heads", &linear_heads)
      .def("add_low_rank", &add_low_rank)
      .def("gate_up", &gate_up, nb::arg("x"), nb::arg("gate"), nb::arg("up"), nb::arg("activation"),
           nb::arg("out"), nb::arg("limit") = 0.0f, nb::arg("gate_bias") = nb::none(),
           nb::arg("up_bias") = nb::none())
      .def("route", &route)
      .def("moe", &moe)
      .def("embed", &embed)
      .def("read_gbps",
           [](Context& c, int64_t bytes) {
             need(bytes >= (int64_t(4) << 20) && bytes <= (int64_t(1) << 40), "bytes out of range");
             nb::gil_scoped_release nogil;
             std::lock_guard<std::mutex> lock(c.mutex());
             return c.read_gbps(bytes);
           })
      .def("int8_gops", [](Context& c, double seconds) {
        need(seconds > 0.0 && seconds <= 60.0, "seconds out of range");
        nb::gil_scoped_release nogil;
        std::lock_guard<std::mutex> lock(c.mutex());
        return c.int8_gops(seconds);
      });
  bind_rows(context);
  bind_cache(m, context);
}
