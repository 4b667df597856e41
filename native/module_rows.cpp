// SPDX-License-Identifier: Apache-2.0
// Python's view of what is computed on rows without a matrix: norms, activations, positions,
// mixtures of streams. Shapes and strides are checked here.
#include "bindings.h"

namespace freehold {
namespace {

Pointwise pointwise_of(const std::string& name) {
  if (name == "silu") return Pointwise::Silu;
  if (name == "gelu_tanh") return Pointwise::GeluTanh;
  if (name == "gelu") return Pointwise::Gelu;
  if (name == "relu2") return Pointwise::Relu2;
  if (name == "xielu") return Pointwise::Xielu;
  refuse("unknown activation");
}

void rms_norm(Context& c, const Floats2& x, const Floats1& w, float eps, const FloatsOut& out,
              const std::optional<FloatsOut>& residual) {
  const int64_t rows = int64_t(x.shape(0)), total = int64_t(x.shape(1)),
                width = int64_t(w.shape(0));
  need(width > 0 && total % width == 0, "row width is no multiple of the norm weight");
  const float* data = rows_of(x, total, "rows must be contiguous");
  float* o = out_rows(out, rows, total, "output shape does not match");
  float* r = residual ? out_rows(*residual, rows, total, "residual shape does not match") : nullptr;
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.rms_norm(r, residual ? residual->stride(0) : 0, data, x.stride(0), w.data(), width, rows,
             total / width, eps, o, int64_t(out.stride(0)));
}

void layer_norm(Context& c, const Floats2& x, const Floats1& w, const std::optional<Floats1>& b,
                float eps, const FloatsOut& out) {
  const int64_t rows = int64_t(x.shape(0)), width = int64_t(w.shape(0));
  need(width > 0 && (!b || int64_t(b->shape(0)) == width), "weight and bias differ in length");
  const float* data = rows_of(x, width, "row width is not that of the norm weight");
  float* o = out_rows(out, rows, width, "output shape does not match");
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.layer_norm(data, x.stride(0), w.data(), b ? b->data() : nullptr, width, rows, eps, o,
               int64_t(out.stride(0)));
}

void activate(Context& c, const FloatsOut& x, const std::string& kind, float alpha_p, float alpha_n,
              float beta, float eps) {
  const int64_t rows = int64_t(x.shape(0)), width = int64_t(x.shape(1));
  float* data = out_rows(x, rows, width, "rows must be contiguous");
  const PointwiseTask task{pointwise_of(kind), alpha_p, alpha_n, beta, eps};
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.activate(task, data, x.stride(0), width, rows);
}

void sparse_gate(Context& c, const FloatsOut& x, float deviations) {
  const int64_t rows = int64_t(x.shape(0)), width = int64_t(x.shape(1));
  float* data = out_rows(x, rows, width, "rows must be contiguous");
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.sparse_gate(data, x.stride(0), width, rows, deviations);
}

void mix_streams(Context& c, const std::vector<Floats2>& streams, const Floats2& weights,
                 const std::vector<FloatsOut>& outs) {
  const int64_t count = int64_t(streams.size()), made = int64_t(outs.size());
  need(count > 0 && count <= Context::kMaxStreams && made > 0 && made <= Context::kMaxStreams,
       "between 1 and 64 streams and results");
  const int64_t rows = int64_t(streams[0].shape(0)), width = int64_t(streams[0].shape(1));
  need(int64_t(weights.shape(0)) == rows, "one row of weights per token");
  const float* w = rows_of(weights, count * made, "one weight per stream and result");
  std::vector<Context::Rows> in, out;
  for (const Floats2& x : streams) {
    need(int64_t(x.shape(0)) == rows, "streams differ in length");
    // Only read: the type is shared with the results.
    in.push_back({const_cast<float*>(rows_of(x, width, "streams differ in width")), x.stride(0)});
  }
  for (const FloatsOut& x : outs)
    out.push_back({out_rows(x, rows, width, "output shape does not match"), x.stride(0)});
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.mix_streams(in, w, weights.stride(0), out, width, rows);
}

void rope(Context& c, const FloatsOut& x, const Floats2& cos, const Floats2& sin, int64_t head_dim,
          bool interleaved, int64_t offset) {
  const int64_t rows = int64_t(x.shape(0)), half = int64_t(cos.shape(1));
  need(head_dim > 0 && int64_t(x.shape(1)) % head_dim == 0 && offset >= 0 && offset <= head_dim &&
           half * 2 <= head_dim - offset,
       "head_dim does not fit");
  need(int64_t(cos.shape(0)) == rows && int64_t(sin.shape(0)) == rows, "one angle row per token");
  need(rows <= 1 || (cos.stride(0) == half && sin.stride(0) == half),
       "angle tables must be contiguous");
  rows_of(cos, half, "angle tables must be contiguous");
  rows_of(sin, half, "angle tables must be contiguous");
  float* data = out_rows(x, rows, int64_t(x.shape(1)), "rows must be contiguous");
  const int64_t heads = int64_t(x.shape(1)) / head_dim;
  nb::gil_scoped_release nogil;
  std::lock_guard<std::mutex> lock(c.mutex());
  c.rope(data + offset, x.stride(0), rows, heads, head_dim, cos.data(), sin.data(), half,
         interleaved);
}

}  // namespace

void bind_rows(nb::class_<Context>& context) {
  context
      .def("rms_norm", &rms_norm, nb::arg("x"), nb::arg("w"), nb::arg("eps"), nb::arg("out"),
           nb::arg("residual").none())
      .def("layer_norm", &layer_norm, nb::arg("x"), nb::arg("w"), nb::arg("b").none(),
           nb::arg("eps"), nb::arg("out"))
      .def("activate", &activate)
      .def("sparse_gate", &sparse_gate)
      .def("mix_streams", &mix_streams)
      .def("rope", &rope);
}

}  // namespace freehold
