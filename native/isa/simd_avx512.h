// SPDX-License-Identifier: Apache-2.0
// AVX-512 F/BW/DQ/VL with VNNI; BF16 when compiled for it.
#pragma once
#include <immintrin.h>

namespace freehold {
namespace {

constexpr bool kFullU8 = true;  // the byte dot product takes weights 0..255
#if defined(__AVX512BF16__)
constexpr bool kHasBF16Dot = true;
FH_INLINE vf f_dot_bf16(vf acc, vi a, vi b) {
  return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)(__m512i)a, (__m512bh)(__m512i)b);
}
#else
constexpr bool kHasBF16Dot = false;
#endif

FH_INLINE vf f_fma(vf a, vf b, vf c) {
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
FH_INLINE vf f_max(vf a, vf b) {
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}
FH_INLINE vf f_min(vf a, vf b) {
  return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}
FH_INLINE vf f_abs(vf a) {
  return (vf)_mm512_abs_ps((__m512)a);
}
FH_INLINE vi i_round(vf a) {
  return (vi)_mm512_cvtps_epi32((__m512)a);
}
FH_INLINE vf f_from_i(vi a) {
  return (vf)_mm512_cvtepi32_ps((__m512i)a);
}
FH_INLINE vi i_mul(vi a, vi b) {
  return (vi)_mm512_mullo_epi32((__m512i)a, (__m512i)b);
}

// acc + sum over 4 bytes: unsigned w times signed a
FH_INLINE vi i_dot_u(vi acc, vi w, vi a) {
  return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, (__m512i)a);
}
FH_INLINE vi i_dot_s(vi acc, vi, vi) {
  return acc;
}  // never chosen: kFullU8
// The same with the 4 bytes at p in every lane. The broadcast rides on the instruction's load; GCC
// does not fold it by itself, and a separate broadcast costs an issue slot and a register each.
FH_INLINE vi i_dot_u_at(vi acc, vi w, const void* p) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const int32_t*)p));
  return acc;
}
FH_INLINE vi i_dot_s_at(vi acc, vi, const void*) {
  return acc;
}
// acc + sum over 2 signed 16-bit values
FH_INLINE vi i_dot16(vi acc, vi a, vi b) {
  return (vi)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
}
FH_INLINE vf f_load_f16(const uint16_t* p) {
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
FH_INLINE void f_store_f16(uint16_t* p, vf v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
FH_INLINE vf f_load_bf16(const uint16_t* p) {
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
}
FH_INLINE vf f_f16_low(vi words) {  // half floats in the low 16 bits of each lane
  return (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)words));
}
FH_INLINE vi i_load_s8(const int8_t* p) {
  return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p));
}
FH_INLINE void i_store_s8(int8_t* p, vi v) {
  _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8((__m512i)v));
}
FH_INLINE vi i_lookup(vi index, const uint8_t* table) {  // 16 bytes
  const __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table));
  return (vi)_mm512_shuffle_epi8(t, (__m512i)index);
}

// Byte `byte` of each lane in all its places, tested for one bit each: four from bit 8 byte on, or
// the four above those.
FH_INLINE __mmask64 i_four_bits(vi v, int n) {
  const int byte = 0x01010101 * (n / 8);
  const __m512i places =
      _mm512_set4_epi32(0x0c0c0c0c + byte, 0x08080808 + byte, 0x04040404 + byte, byte);
  return _mm512_test_epi8_mask(_mm512_shuffle_epi8((__m512i)v, places),
                               _mm512_set1_epi32(int32_t(n % 8 ? 0x80402010 : 0x08040201)));
}
#define FH_HAS_BITS4
FH_INLINE vi i_bits4(vi v, int n) {
  return (vi)_mm512_maskz_set1_epi8(i_four_bits(v, n), 1);
}
#define FH_HAS_FLIP
FH_INLINE vi i_flip(vi w, vi signs, int n) {
  return (vi)_mm512_mask_sub_epi8((__m512i)w, i_four_bits(signs, n), _mm512_set1_epi8(-128),
                                  (__m512i)w);
}
#define FH_HAS_DOUBLE_BYTES
template <int Half>
FH_INLINE vi i_double_bytes(vi v) {
  constexpr int first = 0x01010000 + 0x02020202 * Half;
  return (vi)_mm512_shuffle_epi8(
      (__m512i)v,
      _mm512_set4_epi32(0x0c0c0c0c + first, 0x08080808 + first, 0x04040404 + first, first));
}
// Entries of a table of N for the 16-bit halves of all lanes: 64 entries to a permutation, of which
// the upper bits of the index choose one. A gather takes longer up to N = 1024.
constexpr int kFindMax = 1024;
template <int N>
FH_INLINE vi i_find(const uint16_t* table, vi index) {
  if constexpr (N == 64) {
    return (vi)_mm512_permutex2var_epi16(_mm512_load_si512(table), (__m512i)index,
                                         _mm512_load_si512(table + 32));
  } else {
    const __mmask32 upper = _mm512_test_epi16_mask((__m512i)index, _mm512_set1_epi16(N / 2));
    return (vi)_mm512_mask_blend_epi16(upper, (__m512i)i_find<N / 2>(table, index),
                                       (__m512i)i_find<N / 2>(table + N / 2, index));
  }
}

// The sum adds the upper half to the lower one until one lane is left: the order of the plain
// version in simd.h.
#define FH_HAS_REDUCE
FH_INLINE float f_sum(vf v) {
  const __m256 x =
      _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
FH_INLINE float f_hmax(vf v) {
  const __m256 x =
      _mm256_max_ps(_mm512_extractf32x8_ps((__m512)v, 1), _mm512_castps512_ps256((__m512)v));
  __m128 y = _mm_max_ps(_mm256_extractf128_ps(x, 1), _mm256_castps256_ps128(x));
  y = _mm_max_ps(_mm_movehl_ps(y, y), y);
  return _mm_cvtss_f32(_mm_max_ss(_mm_movehdup_ps(y), y));
}
FH_INLINE int32_t i_sum(vi v) {
  const __m256i x = _mm256_add_epi32(_mm512_castsi512_si256((__m512i)v),
                                     _mm512_extracti64x4_epi64((__m512i)v, 1));
  __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  y = _mm_add_epi32(y, _mm_unpackhi_epi64(y, y));
  return _mm_cvtsi128_si32(_mm_add_epi32(y, _mm_shuffle_epi32(y, 1)));
}

}  // namespace
}  // namespace freehold
