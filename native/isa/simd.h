// SPDX-License-Identifier: Apache-2.0
// One native vector of 32-bit lanes, written with the compiler's vector types; the handful of
// things those cannot say (byte dot products, half floats, rounding, table look-up) come from the
// header of the ISA. Everything is in an unnamed namespace: these functions are compiled once per
// ISA with different flags and must never be merged by the linker.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(FH_ISA_AVX512)
#define FH_LANES 16
#elif defined(FH_ISA_AVX2)
#define FH_LANES 8
#else
#define FH_LANES 4
#endif

// An empty statement that makes the compiler believe the register changed.
#if defined(__x86_64__)
#define FH_OPAQUE(x) asm volatile("" : "+v"(x))
#elif defined(__aarch64__)
#define FH_OPAQUE(x) asm volatile("" : "+w"(x))
#else
#define FH_OPAQUE(x) asm volatile("" : "+m"(x))
#endif

#define FH_INLINE inline __attribute__((always_inline))

namespace freehold {
namespace {

constexpr int W = FH_LANES;
constexpr int kParts = 16 / W;  // native vectors per 16 rows (or tokens)

typedef float vf __attribute__((vector_size(4 * FH_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * FH_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * FH_LANES)));

FH_INLINE vf f_set(float x) {
  return x - vf{};
}
FH_INLINE vi i_set(int32_t x) {
  return x - vi{};
}
template <class T>
FH_INLINE vi i_load(const T* p) {
  vi v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
FH_INLINE vf f_load(const float* p) {
  vf v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
FH_INLINE void f_store(float* p, vf v) {
  std::memcpy(p, &v, sizeof v);
}
FH_INLINE void i_store(void* p, vi v) {
  std::memcpy(p, &v, sizeof v);
}
template <int N>
FH_INLINE vi i_shr(vi v) {
  return (vi)((vu)v >> N);
}  // logical
template <int N>
FH_INLINE vi i_sar(vi v) {
  return v >> N;
}  // arithmetic
template <int N>
FH_INLINE vi i_shl(vi v) {
  return v << N;
}
FH_INLINE vi i_shrv(vi v, int n) {
  return (vi)((vu)v >> (uint32_t)n);
}
FH_INLINE vi i_bcast(const void* p) {
  int32_t x;
  std::memcpy(&x, p, 4);
  return i_set(x);
}
FH_INLINE vf f_bits(vi v) {
  return (vf)v;
}
FH_INLINE vi i_bits(vf v) {
  return (vi)v;
}
FH_INLINE vf f_select(vi mask, vf a, vf b) {
  return (vf)((mask & (vi)a) | (~mask & (vi)b));
}
FH_INLINE vi i_iota() {
  vi v;
  for (int i = 0; i < W; ++i) v[i] = i;
  return v;
}

}  // namespace
}  // namespace freehold

#if defined(FH_ISA_AVX512)
#include "simd_avx512.h"
#elif defined(FH_ISA_AVX2)
#include "simd_avx2.h"
#elif defined(FH_ISA_NEON)
#include "simd_neon.h"
#else
#include "simd_baseline.h"
#endif

namespace freehold {
namespace {

#if !defined(FH_HAS_BITS4)
// Bits n .. n + 3 of each lane, one to a byte; n is a multiple of 4.
FH_INLINE vi i_bits4(vi v, int n) {
  const vi x = i_shrv(v, n) & 15;
  return (x | i_shl<7>(x) | i_shl<14>(x) | i_shl<21>(x)) & 0x01010101;
}
#endif
#if !defined(FH_HAS_FLIP)
// 128 - w for bytes of w between 1 and 127 whose sign bit, of the four from bit n on, is set.
FH_INLINE vi i_flip(vi w, vi signs, int n) {
  const vu negative = (vu)i_bits4(signs, n);
  return (vi)(((vu)w ^ ((negative << 7) - negative)) + negative);
}
#endif
#if !defined(FH_ISA_AVX512)
constexpr int kFindMax = 0;  // no tables are searched in registers
template <int N>
FH_INLINE vi i_find(const uint16_t*, vi index) {
  return index;
}
#endif
#if !defined(FH_HAS_DOUBLE_BYTES)
// The lower (Half = 0) or upper two bytes of each lane, each of them twice.
template <int Half>
FH_INLINE vi i_double_bytes(vi v) {
  const vi x = i_shr<16 * Half>(v) & 0xffff;
  const vi apart = (x | i_shl<8>(x)) & 0x00ff00ff;
  return apart | i_shl<8>(apart);
}
#endif
#if !defined(FH_ISA_AVX512)  // which broadcasts inside the instruction
FH_INLINE vi i_dot_u_at(vi acc, vi w, const void* p) {
  return i_dot_u(acc, w, i_bcast(p));
}
FH_INLINE vi i_dot_s_at(vi acc, vi w, const void* p) {
  return i_dot_s(acc, w, i_bcast(p));
}
#endif

// bfloat16 of a float, round to nearest even (a NaN keeps its quiet bit).
FH_INLINE uint16_t bf16_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return uint16_t((u >> 16) | 0x40);
  return uint16_t((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

// exp(x), relative error below 2e-7 for x in [-87, 88]; exactly 1 at 0; 0 for x below -87.3
// (attention masks with -inf). Range reduction by ln 2 in two parts, then a degree-6 polynomial
// (Cephes-style minimax coefficients of the exponential are common knowledge).
FH_INLINE vf f_exp(vf x) {
  const vf lo = f_set(-87.3f), hi = f_set(88.3f);
  const vi under = (vi)(x < lo);
  x = f_max(f_min(x, hi), lo);
  const vi n = i_round(x * f_set(1.44269504088896341f));
  const vf nf = f_from_i(n);
  vf r = f_fma(nf, f_set(-0.693359375f), x);
  r = f_fma(nf, f_set(2.12194440e-4f), r);
  vf p = f_set(1.9875691500e-4f);
  p = f_fma(p, r, f_set(1.3981999507e-3f));
  p = f_fma(p, r, f_set(8.3334519073e-3f));
  p = f_fma(p, r, f_set(4.1665795894e-2f));
  p = f_fma(p, r, f_set(1.6666665459e-1f));
  p = f_fma(p, r, f_set(5.0000001201e-1f));
  p = f_fma(p, r * r, r + f_set(1.0f));
  const vf e = f_bits(i_bits(p) + i_shl<23>(n));
  return f_select(under, f_set(0.0f), e);
}

#if !defined(FH_HAS_REDUCE)
FH_INLINE float f_sum(vf v) {  // pairwise, so that the order is fixed by the lane count alone
  float a[W];
  f_store(a, v);
  for (int s = W / 2; s > 0; s /= 2)
    for (int i = 0; i < s; ++i) a[i] += a[i + s];
  return a[0];
}
FH_INLINE float f_hmax(vf v) {
  float a[W];
  f_store(a, v);
  float m = a[0];
  for (int i = 1; i < W; ++i) m = a[i] > m ? a[i] : m;
  return m;
}
FH_INLINE int32_t i_sum(vi v) {
  int32_t sum = 0;
  for (int i = 0; i < W; ++i) sum += v[i];
  return sum;
}
#endif

}  // namespace
}  // namespace freehold
