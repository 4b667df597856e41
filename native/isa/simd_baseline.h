// SPDX-License-Identifier: Apache-2.0
// Anything: x86-64 with SSE2 alone, or whatever else the compiler targets. Correct first.
#pragma once
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace freehold {
namespace {

constexpr bool kHasBF16Dot = false;
constexpr bool kFullU8 = true;

#if defined(__SSE2__)
FH_INLINE vi i_dot16(vi acc, vi a, vi b) {
  return acc + (vi)_mm_madd_epi16((__m128i)a, (__m128i)b);
}
FH_INLINE vi i_dot_u(vi acc, vi w, vi a) {
  const __m128i we = _mm_and_si128((__m128i)w, _mm_set1_epi16(0xff));
  const __m128i wo = _mm_srli_epi16((__m128i)w, 8);
  const __m128i ae = _mm_srai_epi16(_mm_slli_epi16((__m128i)a, 8), 8);
  const __m128i ao = _mm_srai_epi16((__m128i)a, 8);
  return acc + (vi)_mm_madd_epi16(we, ae) + (vi)_mm_madd_epi16(wo, ao);
}
FH_INLINE vf f_max(vf a, vf b) {
  return (vf)_mm_max_ps((__m128)a, (__m128)b);
}
FH_INLINE vf f_min(vf a, vf b) {
  return (vf)_mm_min_ps((__m128)a, (__m128)b);
}
FH_INLINE vi i_round(vf a) {
  return (vi)_mm_cvtps_epi32((__m128)a);
}
FH_INLINE vf f_from_i(vi a) {
  return (vf)_mm_cvtepi32_ps((__m128i)a);
}
#else
FH_INLINE vi i_dot16(vi acc, vi a, vi b) {
  return acc + i_sar<16>(i_shl<16>(a)) * i_sar<16>(i_shl<16>(b)) + i_sar<16>(a) * i_sar<16>(b);
}
FH_INLINE vi i_dot_u(vi acc, vi w, vi a) {
  return acc + (w & 0xff) * i_sar<24>(i_shl<24>(a)) +
         (i_shr<8>(w) & 0xff) * i_sar<24>(i_shl<16>(a)) +
         (i_shr<16>(w) & 0xff) * i_sar<24>(i_shl<8>(a)) + i_shr<24>(w) * i_sar<24>(a);
}
FH_INLINE vf f_max(vf a, vf b) {
  return f_select((vi)(a > b), a, b);
}
FH_INLINE vf f_min(vf a, vf b) {
  return f_select((vi)(a < b), a, b);
}
FH_INLINE vi i_round(vf a) {
  const vf big = f_set(12582912.0f);  // 1.5 * 2^23: adding it rounds to nearest even
  return __builtin_convertvector((a + big) - big, vi);
}
FH_INLINE vf f_from_i(vi a) {
  return __builtin_convertvector(a, vf);
}
#endif
FH_INLINE vi i_dot_s(vi acc, vi, vi) {
  return acc;
}  // never chosen: kFullU8

FH_INLINE vf f_fma(vf a, vf b, vf c) {
  return a * b + c;
}
FH_INLINE vf f_abs(vf a) {
  return f_bits(i_bits(a) & 0x7fffffff);
}
FH_INLINE vi i_mul(vi a, vi b) {
  return a * b;
}

// Half to float in the lanes: scale the exponent by a multiplication, which also handles
// subnormals; patch infinities and NaNs.
FH_INLINE vf f_f16_low(vi words) {
  const vi h = words & 0xffff;
  const vi sign = i_shl<16>(h & 0x8000);
  const vi mag = i_shl<13>(h & 0x7fff);
  const vf scaled = f_bits(mag) * f_set(0x1p112f);
  const vi special = (vi)((h & 0x7c00) == 0x7c00);
  const vf patched = f_select(special, f_bits(mag | 0x7f800000), scaled);
  return f_bits(i_bits(patched) | sign);
}
FH_INLINE vf f_load_f16(const uint16_t* p) {
  vi v;
  for (int i = 0; i < W; ++i) v[i] = p[i];
  return f_f16_low(v);
}
FH_INLINE uint16_t f16_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  const uint32_t sign = (u >> 16) & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) return uint16_t(sign | 0x7e00);
  if (u >= 0x47800000) return uint16_t(sign | 0x7c00);  // 65536 and above; 65520.. handled below
  if (u < 0x38800000) {                                 // subnormal half
    float f;
    std::memcpy(&f, &u, 4);
    f += 0.5f;  // aligns the mantissa at 2^-24, rounding
    std::memcpy(&u, &f, 4);
    return uint16_t(sign | (u - 0x3f000000));
  }
  const uint32_t odd = (u >> 13) & 1;
  u += 0xc8000fff + odd;  // rebias the exponent, round to even
  return uint16_t(sign | (u >> 13));
}
FH_INLINE void f_store_f16(uint16_t* p, vf v) {
  for (int i = 0; i < W; ++i) p[i] = f16_of(v[i]);
}
FH_INLINE vf f_load_bf16(const uint16_t* p) {
  vi v;
  for (int i = 0; i < W; ++i) v[i] = int32_t(p[i]);
  return f_bits(i_shl<16>(v));
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
  uint8_t b[4 * W], r[4 * W];
  i_store(b, index);
  for (int i = 0; i < 4 * W; ++i) r[i] = table[b[i] & 15];
  return i_load(r);
}

}  // namespace
}  // namespace freehold
