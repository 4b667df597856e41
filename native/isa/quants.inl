// SPDX-License-Identifier: Apache-2.0
// How each stored type yields 4 weights of W rows at a time.
//
// `bp` points at a block of a packed group, already moved to the wanted part of the 16 rows:
// word i of the block is at bp + 64 * i. `quad(bp, q)` gives weights 4q .. 4q+3 as bytes:
// unsigned values below 128, or, for types that need the full byte, an offset byte (value + 128)
// where the ISA's dot product is unsigned, the signed byte itself where it is signed.
// Words come in the order in which they are used (ops.cpp, `word_order`): the hardware prefetchers
// then see one ascending stream, which they reward with twice the bandwidth on some types.
// A lone scale cannot be a word; those of two or four consecutive blocks share the 64 bytes before
// them.
// Layouts: the ggml block formats; see quants/*.py for the plain definition of each.

namespace freehold {
namespace {

constexpr int kNoInit = -1;
constexpr int kByteInit256 = kFullU8 ? int(kInit32x128) : kNoInit;
constexpr vi kNib = vi{} + 0x0f0f0f0f;

FH_INLINE vi word(const uint8_t* bp, int i) {
  return i_load(bp + 64 * i);
}
FH_INLINE vi nibbles(vi w, bool high) {
  return (high ? i_shr<4>(w) : w) & kNib;
}
FH_INLINE vf low_half(vi w) {
  return f_f16_low(w);
}
FH_INLINE vf high_half(vi w) {
  return f_f16_low(i_shr<16>(w));
}
FH_INLINE vi as_pair(vi lo, vi hi) {
  return (lo & 0xffff) | i_shl<16>(hi);
}
FH_INLINE vi full_byte(vi s8) {
  return kFullU8 ? s8 ^ (vi{} + int32_t(0x80808080)) : s8;
}

alignas(16) constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};
struct Iq4Table {
  uint8_t b[16];
};
constexpr Iq4Table make_iq4_table() {
  Iq4Table t{};
  for (int i = 0; i < 16; ++i) t.b[i] = uint8_t(kIq4Values[i] + (kFullU8 ? 128 : 0));
  return t;
}
alignas(16) constexpr Iq4Table kIq4Table = make_iq4_table();

// ---- types with one scale per 32 weights ------------------------------------------------------

struct Block32 {
  static constexpr int kSpans = 1;  // times 32 weights in a block
  static constexpr int kSub = 32;   // weights that share a scale: 16 or 32
  static constexpr int kHead = 0;   // bytes of the lone scale
  static constexpr bool kK = false, kPanel = false, kUnpack = false;
  static constexpr bool kMin = false;
  static FH_INLINE vf min(const uint8_t*) { return vf{}; }
};
template <int N>
struct Head32 : Block32 {  // a lone f16 scale, N words
  static constexpr int kWords = N, kHead = 2;
  static FH_INLINE vf d(const uint8_t*, const uint8_t* hp, int) {
    return f_load_f16((const uint16_t*)hp);
  }
};

struct Q8_0 : Head32<8> {
  static constexpr bool kSigned = !kFullU8;
  static constexpr int kInit = kFullU8 ? int(kInit32x128) : kNoInit;
  static constexpr int kOffset = kFullU8 ? 128 : 0;
  static FH_INLINE vi quad(const uint8_t* bp, int q) { return full_byte(word(bp, q)); }
};
struct Q4_0 : Head32<4> {
  static constexpr bool kSigned = false;
  static constexpr int kInit = kInit32x8, kOffset = 8;
  static FH_INLINE vi quad(const uint8_t* bp, int q) { return nibbles(word(bp, q & 3), q >= 4); }
};
struct IQ4_NL : Head32<4> {
  static constexpr bool kSigned = !kFullU8;
  static constexpr int kInit = kFullU8 ? int(kInit32x128) : kNoInit;
  static constexpr int kOffset = kFullU8 ? 128 : 0;
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    return i_lookup(nibbles(word(bp, q & 3), q >= 4), kIq4Table.b);
  }
};
// Four bits of the high-bit word, spread to bit 4 of each byte.
FH_INLINE vi fifth_bits(vi qh, int q) {
  const vi x = i_shrv(qh, 4 * q) & 15;
  const vi spread = (x | i_shl<7>(x) | i_shl<14>(x) | i_shl<21>(x)) & 0x01010101;
  return i_shl<4>(spread);
}
struct Q5_0 : Head32<5> {
  static constexpr bool kSigned = false;
  static constexpr int kInit = kInit32x16, kOffset = 16;
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    return nibbles(word(bp, 1 + (q & 3)), q >= 4) | fifth_bits(word(bp, 0), q);
  }
};
struct Affine32 : Block32 {
  static constexpr bool kMin = true, kSigned = false;
  static constexpr int kInit = kNoInit, kOffset = 0;
  static FH_INLINE vf d(const uint8_t* bp, const uint8_t*, int) { return low_half(word(bp, 0)); }
  static FH_INLINE vf min(const uint8_t* bp) { return high_half(word(bp, 0)); }
};
struct Q4_1 : Affine32 {
  static constexpr int kWords = 5;
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    return nibbles(word(bp, 1 + (q & 3)), q >= 4);
  }
};
struct Q5_1 : Affine32 {
  static constexpr int kWords = 6;
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    return nibbles(word(bp, 2 + (q & 3)), q >= 4) | fifth_bits(word(bp, 1), q);
  }
};

// Four-bit floats, doubled to be whole, as bytes 64 above them: below 128, so that every dot
// product takes them as they are. Their scales are halved in return.
constexpr uint8_t kFp4Table[16] = {64, 65, 66, 67, 68, 70, 72, 76, 64, 63, 62, 61, 60, 58, 56, 52};
struct MXFP4 : Block32 {
  static constexpr int kWords = 4, kHead = 1;
  static constexpr bool kSigned = false;
  static constexpr int kInit = kInit32x64, kOffset = 64;
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    return i_lookup(nibbles(word(bp, q & 3), q >= 4), kFp4Table);
  }
  // 2^(e - 128); exponents 0 and 1 give subnormal numbers
  static FH_INLINE vf d(const uint8_t*, const uint8_t* hp, int) {
    const vi e = i_load_s8((const int8_t*)hp) & 0xff;
    return f_select((vi)(e < 2), f_bits(i_shl<21>(e + 1)), f_bits(i_shl<23>(e - 1)));
  }
};
struct NVFP4 : Block32 {
  static constexpr int kWords = 9, kSpans = 2, kSub = 16;
  static constexpr bool kSigned = false;
  static constexpr int kInit = kInit16x64, kOffset = 64;
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    return i_lookup(nibbles(word(bp, 1 + (q / 4) * 2 + (q & 1)), (q & 2) != 0), kFp4Table);
  }
  // Half of an unsigned E4M3 number: its fields fit those of a float, 119 powers of two too low.
  static FH_INLINE vf d(const uint8_t* bp, const uint8_t*, int sub) {
    const vi byte = i_shrv(word(bp, 0), 8 * sub) & 0xff;
    const vi nan = (vi)(byte == 127);  // counts as 0
    return f_bits(i_shl<20>(byte & 127) & ~nan) * f_set(0x1p119f);
  }
};
struct Q1_0 : Head32<4> {
  static constexpr int kSpans = 4;
  static constexpr bool kSigned = false;
  static constexpr int kInit = kInit32x1, kOffset = 1;
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    return i_shl<1>(i_bits4(word(bp, q / 8), 4 * (q % 8)));
  }
};
struct Q2_0 : Head32<4> {
  static constexpr int kSpans = 2;
  static constexpr bool kSigned = false;
  static constexpr int kInit = kInit32x1, kOffset = 1;
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    const vi x = i_shrv(word(bp, q / 4), 8 * (q % 4)) & 0xff;
    return (x | i_shl<6>(x) | i_shl<12>(x) | i_shl<18>(x)) & 0x03030303;
  }
};

// ---- super-blocks of 256 with integer sub-block scales ----------------------------------------

// Sub-blocks that share words: with few columns there are registers to sum `kLockstep` of them at
// once, which reads every word once and spreads the reads evenly. Step o, place l: sub-block
// 2 o + l of the types with 32-value sub-blocks; of the others, every second one of a half.
template <int Lockstep>
FH_INLINE constexpr int sub_block(int o, int l) {
  return Lockstep == 1 ? o : Lockstep == 2 ? 2 * o + l : (o / 2) * 8 + 2 * l + o % 2;
}

struct NoScales {};
struct Block256 {
  static constexpr int kLockstep = 1, kSpans = 1, kHead = 0;
  static constexpr bool kK = true, kPanel = false, kUnpack = false;
  static constexpr bool kScaled = true;  // sub-blocks have scales
  static constexpr bool kMin = false, kSigned = false;
  static FH_INLINE vi min_pair(NoScales, const uint8_t*, int) { return vi{}; }
  static FH_INLINE vf dmin(const uint8_t*) { return vf{}; }
};

struct Scales6 {  // the 12 bytes of 6-bit scales and minima of Q4_K and Q5_K
  vi a, b, c;
};
template <int Words>
struct K45 : Block256 {
  static constexpr int kWords = Words, kSub = 32, kInit = kNoInit, kOffset = 0, kLockstep = 2;
  static constexpr bool kMin = true;
  using Scales = Scales6;
  static FH_INLINE Scales scales(const uint8_t* bp) {
    return {word(bp, 1), word(bp, 2), word(bp, 3)};
  }
  static FH_INLINE vi scale(const Scales& s, const uint8_t*, int j) {
    if (j < 4) return i_shrv(s.a, 8 * j) & 63;
    return (i_shrv(s.c, 8 * (j - 4)) & 15) | (i_shrv(s.a, 8 * (j - 4) + 2) & 48);
  }
  static FH_INLINE vi min_of(const Scales& s, int j) {
    if (j < 4) return i_shrv(s.b, 8 * j) & 63;
    return (i_shrv(s.c, 8 * (j - 4) + 4) & 15) | (i_shrv(s.b, 8 * (j - 4) + 2) & 48);
  }
  static FH_INLINE vi min_pair(const Scales& s, const uint8_t*, int p) {
    return as_pair(min_of(s, 2 * p), min_of(s, 2 * p + 1));
  }
  static FH_INLINE vf d(const uint8_t* bp, const uint8_t*) { return low_half(word(bp, 0)); }
  static FH_INLINE vf dmin(const uint8_t* bp) { return high_half(word(bp, 0)); }
};
struct Q4_K : K45<36> {
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    const int j = q / 8;
    return nibbles(word(bp, 4 + (j / 2) * 8 + q % 8), j & 1);
  }
};
struct Q5_K : K45<44> {
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    const int j = q / 8;
    const int i = q % 8;
    const vi high = i_shrv(word(bp, 5 + 2 * i), j) & 0x01010101;
    return nibbles(word(bp, j < 2 ? 4 + 2 * i : 12 + (j / 2) * 8 + i), j & 1) | i_shl<4>(high);
  }
};

struct Q6_K : Block256 {
  static constexpr int kWords = 52, kSub = 16, kInit = kInit16x32, kOffset = 32, kLockstep = 4;
  static constexpr int kHead = 2;
  using Scales = NoScales;
  static FH_INLINE Scales scales(const uint8_t*) { return {}; }
  static FH_INLINE vi scale(const Scales&, const uint8_t* bp, int j) {
    return i_sar<24>(vi(word(bp, j / 4) << (24 - 8 * (j % 4))));
  }
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    const int half = q / 32, quarter = (q % 32) / 8, i = q % 8;
    const int base = 4 + 24 * half + 3 * i;  // low bits of quarters 0 and 2, of 1 and 3, high bits
    const vi low = nibbles(word(bp, base + (quarter & 1)), quarter >= 2);
    const vi high = word(bp, base + 2);
    const vi two = (quarter == 3   ? i_shr<2>(high)
                    : quarter == 2 ? high
                    : quarter == 1 ? i_shl<2>(high)
                                   : i_shl<4>(high)) &
                   0x30303030;
    return low | two;
  }
  static FH_INLINE vf d(const uint8_t*, const uint8_t* hp) {
    return f_load_f16((const uint16_t*)hp);
  }
};
struct Q3_K : Block256 {
  static constexpr int kWords = 27, kSub = 16, kInit = kInit16x4, kOffset = 4, kLockstep = 4;
  static constexpr int kHead = 2;
  using Scales = Scales6;
  static FH_INLINE Scales scales(const uint8_t* bp) {
    return {word(bp, 0), word(bp, 1), word(bp, 2)};
  }
  static FH_INLINE vi scale(const Scales& s, const uint8_t*, int j) {
    const vi low = i_shrv((j / 4) & 1 ? s.b : s.a, 8 * (j % 4) + 4 * (j / 8)) & 15;
    const vi high = i_shrv(s.c, 8 * (j % 4) + 2 * (j / 4)) & 3;
    return (low | i_shl<4>(high)) - 32;
  }
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    const int half = q / 32, j = (q % 32) / 8, i = q % 8;
    const vi low = i_shrv(word(bp, half ? 19 + i : 3 + 2 * i), 2 * j) & 0x03030303;
    const vi high = i_shrv(word(bp, 4 + 2 * i), 4 * half + j) & 0x01010101;
    return low | i_shl<2>(high);
  }
  static FH_INLINE vf d(const uint8_t*, const uint8_t* hp) {
    return f_load_f16((const uint16_t*)hp);
  }
};
struct Q2_K : Block256 {
  static constexpr int kWords = 21, kSub = 16, kInit = kNoInit, kOffset = 0, kLockstep = 4;
  static constexpr bool kMin = true;
  using Scales = NoScales;
  static FH_INLINE Scales scales(const uint8_t*) { return {}; }
  static FH_INLINE vi scale(const Scales&, const uint8_t* bp, int j) {
    return i_shrv(word(bp, 1 + j / 4), 8 * (j % 4)) & 15;
  }
  static FH_INLINE vi min_pair(const Scales&, const uint8_t* bp, int p) {
    const vi w = word(bp, 1 + p / 2);
    return as_pair(i_shrv(w, 16 * (p % 2) + 4) & 15, i_shrv(w, 16 * (p % 2) + 12) & 15);
  }
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    const int half = q / 32, j = (q % 32) / 8, i = q % 8;
    return i_shrv(word(bp, 5 + half * 8 + i), 2 * j) & 0x03030303;
  }
  static FH_INLINE vf d(const uint8_t* bp, const uint8_t*) { return low_half(word(bp, 0)); }
  static FH_INLINE vf dmin(const uint8_t* bp) { return high_half(word(bp, 0)); }
};
struct IQ4_XS : Block256 {
  static constexpr int kWords = 34, kSub = 32, kInit = kByteInit256;
  static constexpr int kOffset = kFullU8 ? 128 : 0;
  static constexpr bool kSigned = !kFullU8;
  using Scales = Scales6;
  static FH_INLINE Scales scales(const uint8_t* bp) { return {word(bp, 0), word(bp, 1), vi{}}; }
  static FH_INLINE vi scale(const Scales& s, const uint8_t*, int j) {
    const vi low = i_shrv(s.b, 4 * j) & 15;
    const vi high = i_shrv(s.a, 16 + 2 * j) & 3;
    return (low | i_shl<4>(high)) - 32;
  }
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    const int j = q / 8, i = q % 8;
    return i_lookup(nibbles(word(bp, 2 + 4 * j + i % 4), i >= 4), kIq4Table.b);
  }
  static FH_INLINE vf d(const uint8_t* bp, const uint8_t*) { return low_half(word(bp, 0)); }
};

// Three levels, one scale for the whole block.
struct Ternary : Block256 {
  static constexpr int kSub = 16, kInit = kInit256x1, kOffset = 1, kLockstep = 4, kHead = 2;
  static constexpr bool kScaled = false;
  using Scales = NoScales;
  static FH_INLINE Scales scales(const uint8_t*) { return {}; }
  static FH_INLINE vf d(const uint8_t*, const uint8_t* hp) {
    return f_load_f16((const uint16_t*)hp);
  }
};
struct TQ2_0 : Ternary {
  static constexpr int kWords = 16;
  static FH_INLINE vi quad(const uint8_t* bp, int q) {
    const int half = q / 32, j = (q % 32) / 8, i = q % 8;
    return i_shrv(word(bp, half * 8 + i), 2 * j) & 0x03030303;
  }
};

// ---- panels: the same, unpacked to bytes once for many columns --------------------------------

template <int Sub, bool Scaled, bool Min, int Init, bool Signed>
struct PanelK : Block256 {
  static constexpr bool kPanel = true;
  static constexpr int kSub = Sub, kSubs = 256 / Sub, kInit = Init;
  static constexpr bool kScaled = Scaled, kMin = Min, kSigned = Signed;
  static constexpr int kScaleWord = 64, kPairWord = kScaleWord + (Scaled ? kSubs : 0);
  static constexpr int kDWord = kPairWord + (Min ? kSubs / 2 : 0);
  static constexpr int kWords = kDWord + (Min ? 2 : 1);
  using Scales = NoScales;
  static FH_INLINE Scales scales(const uint8_t*) { return {}; }
  static FH_INLINE vi quad(const uint8_t* bp, int q) { return word(bp, q); }
  static FH_INLINE vi scale(const Scales&, const uint8_t* bp, int j) {
    return word(bp, kScaleWord + j);
  }
  static FH_INLINE vi min_pair(const Scales&, const uint8_t* bp, int p) {
    return word(bp, kPairWord + p);
  }
  static FH_INLINE vf d(const uint8_t* bp, const uint8_t*) { return f_bits(word(bp, kDWord)); }
  static FH_INLINE vf dmin(const uint8_t* bp) { return f_bits(word(bp, kDWord + 1)); }
};
template <int Sub, bool Min, int Init, bool Signed>
struct Panel32 : Block32 {
  static constexpr bool kPanel = true;
  static constexpr int kSub = Sub, kInit = Init, kMinWord = 8 + 32 / Sub;
  static constexpr int kWords = kMinWord + (Min ? 1 : 0);
  static constexpr bool kMin = Min, kSigned = Signed;
  static FH_INLINE vi quad(const uint8_t* bp, int q) { return word(bp, q); }
  static FH_INLINE vf d(const uint8_t* bp, const uint8_t*, int sub) {
    return f_bits(word(bp, 8 + sub));
  }
  static FH_INLINE vf min(const uint8_t* bp) { return f_bits(word(bp, kMinWord)); }
};

template <class F, bool K = F::kK>
struct PanelOf;
template <class F>
struct PanelOf<F, true> {
  using type = PanelK<F::kSub, F::kScaled, F::kMin, F::kInit, F::kSigned>;
};
template <class F>
struct PanelOf<F, false> {
  using type = Panel32<F::kSub, F::kMin, F::kInit, F::kSigned>;
};

// Bytes of panel per stored block.
template <class F>
constexpr int64_t kPanelBlock = int64_t(F::kSpans) * PanelOf<F>::type::kWords * 64;

template <class F>
constexpr int kHeadBlocks = F::kHead ? 4 / (F::kHead ? F::kHead : 1) : 1;  // in 64 bytes of heads

template <class F>
FH_INLINE const uint8_t* block_at(const uint8_t* data, int64_t b) {
  return data + (b * F::kWords + (F::kHead ? b / kHeadBlocks<F> + 1 : 0)) * 64;
}
template <class F>
FH_INLINE const uint8_t* head_at(const uint8_t* data, int64_t b) {
  constexpr int n = kHeadBlocks<F>;
  return F::kHead ? data + (b / n) * (n * F::kWords + 1) * 64 + (b % n) * (64 / n) : data;
}

template <class F>
FH_INLINE void unpack_k(const uint8_t* data, int64_t b, uint8_t* panel) {
  using P = typename PanelOf<F>::type;
  if constexpr (F::kUnpack) F::unpack(block_at<F>(data, b), panel);
  for (int h = 0; h < kParts; ++h) {
    const uint8_t* bp = block_at<F>(data, b) + h * 4 * W;
    const uint8_t* hp = head_at<F>(data, b) + h * F::kHead * W;
    uint8_t* out = panel + h * 4 * W;
    if constexpr (!F::kUnpack) {
#pragma GCC unroll 64
      for (int q = 0; q < 64; ++q) i_store(out + 64 * q, F::quad(bp, q));
    }
    const auto s = F::scales(bp);
    if constexpr (F::kScaled) {
#pragma GCC unroll 16
      for (int j = 0; j < P::kSubs; ++j)
        i_store(out + 64 * (P::kScaleWord + j), F::scale(s, bp, j));
    }
    if constexpr (F::kMin) {
#pragma GCC unroll 8
      for (int p = 0; p < P::kSubs / 2; ++p)
        i_store(out + 64 * (P::kPairWord + p), F::min_pair(s, bp, p));
      i_store(out + 64 * (P::kDWord + 1), i_bits(F::dmin(bp)));
    }
    i_store(out + 64 * P::kDWord, i_bits(F::d(bp, hp)));
  }
}

template <class F>
FH_INLINE void unpack_32(const uint8_t* data, int64_t b, uint8_t* panel) {
  using P = typename PanelOf<F>::type;
  constexpr int kSubs = 32 / F::kSub;
  for (int h = 0; h < kParts; ++h) {
    const uint8_t* bp = block_at<F>(data, b) + h * 4 * W;
    const uint8_t* hp = head_at<F>(data, b) + h * F::kHead * W;
#pragma GCC unroll 4
    for (int s = 0; s < F::kSpans; ++s) {
      uint8_t* out = panel + s * P::kWords * 64 + h * 4 * W;
#pragma GCC unroll 8
      for (int q = 0; q < 8; ++q) i_store(out + 64 * q, F::quad(bp, s * 8 + q));
#pragma GCC unroll 2
      for (int u = 0; u < kSubs; ++u)
        i_store(out + 64 * (8 + u), i_bits(F::d(bp, hp, s * kSubs + u)));
      if constexpr (F::kMin) i_store(out + 64 * P::kMinWord, i_bits(F::min(bp)));
    }
  }
}

// Unpack `count` blocks of a group, from the b-th on.
template <class F>
__attribute__((noinline)) void unpack_blocks(const uint8_t* data, int64_t b, int64_t count,
                                             uint8_t* panel) {
  for (const int64_t end = b + count; b < end; ++b, panel += kPanelBlock<F>) {
    if constexpr (F::kK)
      unpack_k<F>(data, b, panel);
    else
      unpack_32<F>(data, b, panel);
  }
}

}  // namespace
}  // namespace freehold
