// SPDX-License-Identifier: Apache-2.0
// What the files that know Python share: types of arrays, and how numbers from outside are refused.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "kv_store.h"
#include "ops.h"

namespace freehold {

namespace nb = nanobind;

using Floats1 = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats2 = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
using Floats2c = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using IntsOut = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<float, nb::ndim<2>, nb::device::cpu>;
using Ints1 = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ints2 = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bits = nb::ndarray<const uint64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using BitsOut = nb::ndarray<uint64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes2 = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using BytesOut2 = nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr int64_t kMaxDim = int64_t(1) << 31;       // rows, columns
constexpr int64_t kMaxElements = int64_t(1) << 42;  // of one matrix; byte counts then fit easily

// freehold.errors.InvalidParameterError, a ValueError; set when the module is loaded.
extern PyObject* g_invalid;

[[noreturn]] inline void refuse(const char* what) {
  PyErr_SetString(g_invalid, what);
  throw nb::python_error();
}
inline void need(bool ok, const char* what) {
  if (!ok) refuse(what);
}

template <class A>
const float* rows_of(const A& a, int64_t width, const char* what) {
  need(int64_t(a.shape(1)) == width && (a.shape(1) <= 1 || a.stride(1) == 1) && a.stride(0) >= 0,
       what);
  return a.data();
}
inline float* out_rows(const FloatsOut& a, int64_t rows, int64_t width, const char* what) {
  need(int64_t(a.shape(0)) == rows, what);
  rows_of(a, width, what);
  need(rows <= 1 || a.stride(0) >= width, what);
  return a.data();
}

// The methods of Context that compute on rows without a matrix; module_rows.cpp.
void bind_rows(nb::class_<Context>& context);

// The cache's class and the methods of Context that work on it; module_cache.cpp.
void bind_cache(nb::module_& m, nb::class_<Context>& context);

}  // namespace freehold
