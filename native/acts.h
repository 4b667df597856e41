// SPDX-License-Identifier: Apache-2.0
// Where the parts of quantised activations lie: the one place that knows how many bytes each part
// takes per column. Knows no arithmetic and no threads.
#pragma once
#include <type_traits>

#include "kernels.h"

namespace freehold {

// f(pointer, bytes per column) for every part that `needs` names; a part is an array of 4-byte
// elements, those of a block's columns side by side.
template <class F>
void each_part(Acts& a, const QuantizeTask& needs, F&& f) {
  const int64_t k = a.k;
  if (a.kind == ActKind::F32) return f(a.f32, (k + 1) / 2 * 8);
  if (a.kind == ActKind::BF16) return f(a.bf16, (k + 1) / 2 * 4);
  f(a.quads, k);
  f(a.scale, k / (a.kind == ActKind::I8x256 ? 256 : 32) * 4);
  if (needs.need_sum16) f(a.sum16, k / 32 * 4);
  if (needs.need_sum32) f(a.sum32, k / 64 * 4);
  if (needs.need_fsum) f(a.fsum, k / 32 * 4);
  for (int i = 0; i < kInitCount; ++i)
    if (needs.need_init[i]) f(a.init[i], k / kInitShapes[i].span * 4);
}

// Lays the parts out from `base` on and returns how many bytes that takes; without a base it only
// counts.
inline int64_t lay_out(const QuantizeTask& needs, Acts& a, uint8_t* base) {
  const int64_t columns = int64_t(a.nblk - 1) * a.cb + (a.cb > a.last_cb ? a.cb : a.last_cb);
  int64_t bytes = 0;
  each_part(a, needs, [&](auto*& part, int64_t size) {
    if (base) part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(base + bytes);
    bytes += (columns * size + 63) & ~int64_t(63);
  });
  return bytes;
}

}  // namespace freehold
