// SPDX-License-Identifier: Apache-2.0
// AArch64 with the dot-product extension.
#pragma once
#include <arm_neon.h>

namespace freehold {
namespace {

constexpr bool kHasBF16Dot = false;
constexpr bool kFullU8 = false;  // sdot multiplies signed bytes

FH_INLINE vi i_dot_s(vi acc, vi w, vi a) {
  return (vi)vdotq_s32((int32x4_t)acc, (int8x16_t)w, (int8x16_t)a);
}
FH_INLINE vi i_dot_u(vi acc, vi w, vi a) {
  return i_dot_s(acc, w, a);
}  // weights are <= 127
FH_INLINE vi i_dot16(vi acc, vi a, vi b) {
  const int32x4_t lo = vmull_s16(vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
  const int32x4_t hi = vmull_high_s16((int16x8_t)a, (int16x8_t)b);
  return (vi)vaddq_s32((int32x4_t)acc, vpaddq_s32(lo, hi));
}

FH_INLINE vf f_fma(vf a, vf b, vf c) {
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
// maxnm/minnm, not max/min: like the x86 instructions they must not let a masked NaN win
FH_INLINE vf f_max(vf a, vf b) {
  return (vf)vmaxnmq_f32((float32x4_t)a, (float32x4_t)b);
}
FH_INLINE vf f_min(vf a, vf b) {
  return (vf)vminnmq_f32((float32x4_t)a, (float32x4_t)b);
}
FH_INLINE vf f_abs(vf a) {
  return (vf)vabsq_f32((float32x4_t)a);
}
FH_INLINE vi i_round(vf a) {
  return (vi)vcvtnq_s32_f32((float32x4_t)a);
}
FH_INLINE vf f_from_i(vi a) {
  return (vf)vcvtq_f32_s32((int32x4_t)a);
}
FH_INLINE vi i_mul(vi a, vi b) {
  return a * b;
}
FH_INLINE vf f_load_f16(const uint16_t* p) {
  return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
FH_INLINE void f_store_f16(uint16_t* p, vf v) {
  vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v)));
}
FH_INLINE vf f_load_bf16(const uint16_t* p) {
  return (vf)vshll_n_u16(vld1_u16(p), 16);
}
FH_INLINE vf f_f16_low(vi words) {
  return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32((uint32x4_t)words)));
}
FH_INLINE vi i_load_s8(const int8_t* p) {
  vi v;
  for (int i = 0; i < W; ++i) v[i] = p[i];
  return v;
}
FH_INLINE void i_store_s8(int8_t* p, vi v) {
  for (int i = 0; i < W; ++i) p[i] = int8_t(v[i]);
}
FH_INLINE vi i_lookup(vi index, const uint8_t* table) {
  return (vi)vqtbl1q_u8(vld1q_u8(table), (uint8x16_t)index);
}

}  // namespace
}  // namespace freehold
