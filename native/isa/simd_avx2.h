// SPDX-License-Identifier: Apache-2.0
// AVX2 + FMA + F16C; with AVX-VNNI (256-bit) when compiled for it.
#pragma once
#include <immintrin.h>

namespace freehold {
namespace {

constexpr bool kHasBF16Dot = false;
#if defined(__AVXVNNI__)
constexpr bool kFullU8 = true;
FH_INLINE vi i_dot_u(vi acc, vi w, vi a) {
  return (vi)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)w, (__m256i)a);
}
FH_INLINE vi i_dot_s(vi acc, vi, vi) {
  return acc;
}  // never chosen: kFullU8
FH_INLINE vi i_dot16(vi acc, vi a, vi b) {
  return (vi)_mm256_dpwssd_avx_epi32((__m256i)acc, (__m256i)a, (__m256i)b);
}
#else
// vpmaddubsw saturates at 16 bits: weights up to 127 are safe (2 * 127 * 127 = 32258), full bytes
// are not, so those types keep signed weights here and use the absolute-value form.
constexpr bool kFullU8 = false;
FH_INLINE vi i_dot_u(vi acc, vi w, vi a) {
  const __m256i p = _mm256_maddubs_epi16((__m256i)w, (__m256i)a);
  return acc + (vi)_mm256_madd_epi16(p, _mm256_set1_epi16(1));
}
FH_INLINE vi i_dot_s(vi acc, vi w, vi a) {  // a is never -128 (activations are clamped to 127)
  const __m256i p =
      _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w), _mm256_sign_epi8((__m256i)a, (__m256i)w));
  return acc + (vi)_mm256_madd_epi16(p, _mm256_set1_epi16(1));
}
FH_INLINE vi i_dot16(vi acc, vi a, vi b) {
  return acc + (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}
#endif

FH_INLINE vf f_fma(vf a, vf b, vf c) {
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
FH_INLINE vf f_max(vf a, vf b) {
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}
FH_INLINE vf f_min(vf a, vf b) {
  return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}
FH_INLINE vf f_abs(vf a) {
  return f_bits(i_bits(a) & 0x7fffffff);
}
FH_INLINE vi i_round(vf a) {
  return (vi)_mm256_cvtps_epi32((__m256)a);
}
FH_INLINE vf f_from_i(vi a) {
  return (vf)_mm256_cvtepi32_ps((__m256i)a);
}
FH_INLINE vi i_mul(vi a, vi b) {
  return (vi)_mm256_mullo_epi32((__m256i)a, (__m256i)b);
}
FH_INLINE vf f_load_f16(const uint16_t* p) {
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
}
FH_INLINE void f_store_f16(uint16_t* p, vf v) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
FH_INLINE vf f_load_bf16(const uint16_t* p) {
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16);
}
FH_INLINE vf f_f16_low(vi words) {
  const __m256i low = _mm256_and_si256((__m256i)words, _mm256_set1_epi32(0xffff));
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
  return (vf)_mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}
FH_INLINE vi i_load_s8(const int8_t* p) {
  return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p));
}
FH_INLINE void i_store_s8(int8_t* p, vi v) {
  for (int i = 0; i < W; ++i) p[i] = int8_t(v[i]);
}
FH_INLINE vi i_lookup(vi index, const uint8_t* table) {
  const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table));
  return (vi)_mm256_shuffle_epi8(t, (__m256i)index);
}
#define FH_HAS_FLIP
FH_INLINE vi i_flip(vi w, vi signs, int n) {
  const vi places = {0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c};
  const __m256i bits = _mm256_set1_epi32(int32_t(n % 8 ? 0x80402010 : 0x08040201));
  const __m256i spread =
      _mm256_shuffle_epi8((__m256i)signs, (__m256i)(places + 0x01010101 * (n / 8)));
  const __m256i negative = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bits), bits);
  return (vi)_mm256_sub_epi8(
      _mm256_xor_si256((__m256i)w, _mm256_and_si256(negative, _mm256_set1_epi8(127))), negative);
}
#define FH_HAS_DOUBLE_BYTES
template <int Half>
FH_INLINE vi i_double_bytes(vi v) {
  const vi places = {0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c};
  return (vi)_mm256_shuffle_epi8((__m256i)v, (__m256i)(places + (0x01010000 + 0x02020202 * Half)));
}

// The sum adds the upper half to the lower one until one lane is left: the order of the plain
// version in simd.h.
#define FH_HAS_REDUCE
FH_INLINE float f_sum(vf v) {
  const __m256 x = (__m256)v;
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
FH_INLINE float f_hmax(vf v) {
  const __m256 x = (__m256)v;
  __m128 y = _mm_max_ps(_mm256_extractf128_ps(x, 1), _mm256_castps256_ps128(x));
  y = _mm_max_ps(_mm_movehl_ps(y, y), y);
  return _mm_cvtss_f32(_mm_max_ss(_mm_movehdup_ps(y), y));
}
FH_INLINE int32_t i_sum(vi v) {
  const __m256i x = (__m256i)v;
  __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  y = _mm_add_epi32(y, _mm_unpackhi_epi64(y, y));
  return _mm_cvtsi128_si32(_mm_add_epi32(y, _mm_shuffle_epi32(y, 1)));
}

}  // namespace
}  // namespace freehold
