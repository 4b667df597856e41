// SPDX-License-Identifier: Apache-2.0
// Types that are unpacked a block at a time for all 16 rows: those whose values come out of a
// codebook (IQ1, IQ2, IQ3), and TQ1_0 with its five digits to a byte.
//
// A codebook type names, for each 16-bit half of a lane, an entry of the book; what is found there
// are two- or three-bit levels, which a byte shuffle turns into bytes. Signs come last. Bytes are
// 64 above the value, so that all of them lie between 0 and 127 for every kind of dot product.

namespace freehold {
namespace {

struct Unpacked : Block256 {
  static constexpr bool kUnpack = true;
  using Scales = NoScales;
  static FH_INLINE Scales scales(const uint8_t*) { return {}; }
};

// ---- TQ1_0 ------------------------------------------------------------------------------------

// Digits of the bytes of a word, highest first: a byte is a fraction of 256, so that three times it
// is the digit and, below 256, the fraction that is left. Even and odd bytes in 16-bit fields.
struct Digits {
  vi even, odd;

  explicit FH_INLINE Digits(vi w) : even(w & 0x00ff00ff), odd(i_shr<8>(w) & 0x00ff00ff) {}
  FH_INLINE vi next() {
    const vi e = even + i_shl<1>(even), o = odd + i_shl<1>(odd);
    even = e & 0x00ff00ff;
    odd = o & 0x00ff00ff;
    return (i_shr<8>(e) & 0x00030003) | (o & 0x03000300);
  }
};
struct TQ1_0 : Unpacked {
  static constexpr int kWords = 13, kHead = 2, kSub = 16, kInit = kInit256x1, kOffset = 1;
  static constexpr bool kScaled = false;
  static FH_INLINE vi scale(const Scales&, const uint8_t*, int) { return vi{}; }
  static FH_INLINE vf d(const uint8_t*, const uint8_t* hp) {
    return f_load_f16((const uint16_t*)hp);
  }
  // `words` words from the first on hold `depth` digits each: of quads q, q + words, q + 2 words...
  static FH_INLINE void part(const uint8_t* bp, uint8_t* out, int first, int words, int depth,
                             int q) {
    for (int i = 0; i < words; ++i) {
      Digits digits(word(bp, first + i));
      for (int n = 0; n < depth; ++n) i_store(out + 64 * (q + i + n * words), digits.next());
    }
  }
  static FH_INLINE void unpack(const uint8_t* bp, uint8_t* out) {
    for (int h = 0; h < kParts; ++h, bp += 4 * W, out += 4 * W) {
      part(bp, out, 0, 8, 5, 0);
      part(bp, out, 8, 4, 5, 40);
      part(bp, out, 12, 1, 4, 60);
    }
  }
};

// ---- codebooks --------------------------------------------------------------------------------

// Four sets of seven sign bits, one to a byte, get their eighth: it makes their number even.
FH_INLINE vi complete_signs(vi b) {
  vi p = b ^ i_shr<4>(b);
  p ^= i_shr<2>(p);
  p ^= i_shr<1>(p);
  return b | i_shl<7>(p & 0x01010101);
}
FH_INLINE vi packed_signs(vi w) {  // the sets side by side in the low 28 bits
  return complete_signs((w & 0x7f) | (i_shl<1>(w) & 0x7f00) | (i_shl<2>(w) & 0x7f0000) |
                        (i_shl<3>(w) & 0x7f000000));
}
struct Levels {  // for i_lookup, which takes the low four bits of a byte
  uint8_t b[16];
};
constexpr Levels octet_levels(int a, int b, int c) {  // digit k as k or as 4 k
  Levels t{};
  t.b[0] = uint8_t(64 + a);
  t.b[1] = t.b[4] = uint8_t(64 + b);
  t.b[2] = t.b[8] = uint8_t(64 + c);
  return t;
}
constexpr Levels quartet_levels(int first, int step, int last) {
  Levels t{};
  for (int i = 0; i < 7; ++i) t.b[i] = uint8_t(64 + first + i * step);
  t.b[7] = uint8_t(64 + last);
  return t;
}

// Values of an octet or a quartet, from the entries in the lower or upper halves of the lanes.
template <int Half>
FH_INLINE void spread_octet(vi x, const Levels& levels, vi& a, vi& b) {
  const vi t = i_double_bytes<Half>(x);
  a = i_lookup(t & 0x0c030c03, levels.b);
  b = i_lookup(i_shr<4>(t) & 0x0c030c03, levels.b);
}
template <int Half>
FH_INLINE vi spread_quartet(vi x, const Levels& levels) {
  const vi t = i_double_bytes<Half>(x);
  return i_lookup((t & 0x000f000f) | (i_shr<4>(t) & 0x0f000f00), levels.b);
}

// What the types have in common. F gives `pair(bp, p)`, two indices to a lane, those of entries
// `first(p)` and `first(p) + kStride`; `book()`; and what makes bytes of what was found.
template <class F, int Sub>
struct Book : Unpacked {
  static constexpr int kSub = Sub, kOffset = 64;
  static constexpr int kInit = Sub == 16 ? int(kInit16x64) : int(kInit32x64);
  static constexpr int kStride = 2;
  static FH_INLINE constexpr int first(int p) { return 4 * (p / 2) + p % 2; }

  static FH_INLINE void unpack(const uint8_t* bp, uint8_t* out) {
    constexpr int kPairs = F::kQuartets ? 32 : 16;
    alignas(64) uint16_t found[kPairs][32];
    for (int h = 0; h < kParts; ++h) {
#pragma GCC unroll 32
      for (int p = 0; p < kPairs; ++p)
        i_store(found[p] + 2 * h * W, find(F::book(), F::pair(bp + 4 * h * W, p)));
    }
    if constexpr (sizeof F::book().entries > 2 * kFindMax)
      for (auto& row : found)
        for (uint16_t& at : row) at = F::book().entries[at];
    for (int h = 0; h < kParts; ++h)
      for (int i = 0; i < 8; ++i) {
        const vi marks = F::marks(bp + 4 * h * W, i);
#pragma GCC unroll 4
        for (int p = 0; p < kPairs / 8; ++p) {
          const vi x = i_load(found[i * (kPairs / 8) + p] + 2 * h * W);
          const int entry = F::first(p);  // among the entries of 32 values
          uint8_t* at = out + 512 * i + 4 * h * W;
          store<0>(at, x, marks, entry);
          store<1>(at, x, marks, entry + F::kStride);
        }
      }
  }
  template <int N>
  static FH_INLINE vi find(const Codebook<N>& book, vi index) {
    if constexpr (N <= kFindMax)
      return i_find<N>(book.entries, index);
    else
      return index;  // looked up one by one
  }
  template <int Half>
  static FH_INLINE void store(uint8_t* out, vi x, vi marks, int entry) {
    if constexpr (F::kQuartets) {
      const vi w = spread_quartet<Half>(x, F::kLevels);
      i_store(out + 64 * entry, i_flip(w, marks, 4 * entry));
    } else {
      vi a, b;
      spread_octet<Half>(x, F::kLevels, a, b);
      i_store(out + 128 * entry, F::mark(a, marks, 8 * entry));
      i_store(out + 128 * entry + 64, F::mark(b, marks, 8 * entry + 4));
    }
  }
};
FH_INLINE vi odd(vi s) {
  return i_shl<1>(s) + 1;
}

// d / 8 times an odd number, and a magnitude with a sign.
template <class F, int Sub>
struct IQ2 : Book<F, Sub> {
  static constexpr int kHead = 2;
  static constexpr bool kQuartets = false;
  static constexpr Levels kLevels = octet_levels(8, 25, 43);
  static FH_INLINE vi mark(vi w, vi signs, int n) { return i_flip(w, signs, n); }
  static FH_INLINE vf d(const uint8_t*, const uint8_t* hp) {
    return f_load_f16((const uint16_t*)hp) * f_set(0.125f);
  }
};
struct IQ2_XXS : IQ2<IQ2_XXS, 32> {
  static constexpr int kWords = 16;
  static FH_INLINE constexpr const auto& book() { return kBookIQ2XXS; }
  static FH_INLINE vi pair(const uint8_t* bp, int p) {
    return i_shrv(word(bp, p / 2 * 2), 8 * (p % 2)) & 0x00ff00ff;
  }
  static FH_INLINE vi marks(const uint8_t* bp, int i) { return packed_signs(word(bp, 2 * i + 1)); }
  static FH_INLINE vi scale(const Scales&, const uint8_t* bp, int j) {
    return odd(i_shr<28>(word(bp, 2 * j + 1)));
  }
};
struct IQ2_XS : IQ2<IQ2_XS, 16> {
  static constexpr int kWords = 18, kStride = 1;
  static FH_INLINE constexpr int first(int p) { return 2 * p; }
  static FH_INLINE constexpr const auto& book() { return kBookIQ2XS; }
  static FH_INLINE vi pair(const uint8_t* bp, int p) { return word(bp, 2 + p) & 0x01ff01ff; }
  static FH_INLINE vi marks(const uint8_t* bp, int i) {
    const vi a = word(bp, 2 + 2 * i), b = word(bp, 3 + 2 * i);
    return complete_signs((i_shr<9>(a) & 0x7f) | (i_shr<17>(a) & 0x7f00) |
                          (i_shl<7>(b) & 0x7f0000) | (i_shr<1>(b) & 0x7f000000));
  }
  static FH_INLINE vi scale(const Scales&, const uint8_t* bp, int j) {
    return odd(i_shrv(word(bp, j / 8), 4 * (j % 8)) & 15);
  }
};
struct IQ2_S : IQ2<IQ2_S, 16> {
  static constexpr int kWords = 20;
  static FH_INLINE constexpr const auto& book() { return kBookIQ2S; }
  static FH_INLINE vi pair(const uint8_t* bp, int p) {
    const vi high = i_shrv(word(bp, p / 8), p / 2 % 4 * 8 + p % 2 * 2);
    return (i_shrv(word(bp, 4 + p / 2 * 2), 8 * (p % 2)) & 0x00ff00ff) | (i_shl<8>(high) & 0x300) |
           (i_shl<20>(high) & 0x03000000);
  }
  static FH_INLINE vi marks(const uint8_t* bp, int i) { return word(bp, 5 + 2 * i); }
  static FH_INLINE vi scale(const Scales&, const uint8_t* bp, int j) {
    return odd(i_shrv(word(bp, 2 + j / 8), 4 * (j % 8)) & 15);
  }
};

struct IQ3_XXS : Book<IQ3_XXS, 32> {
  static constexpr int kWords = 24, kHead = 2;
  static constexpr bool kQuartets = true;
  static constexpr Levels kLevels = quartet_levels(4, 8, 62);
  static FH_INLINE constexpr const auto& book() { return kBookIQ3XXS; }
  static FH_INLINE vi pair(const uint8_t* bp, int p) {
    return i_shrv(word(bp, p / 4 * 3 + p / 2 % 2), 8 * (p % 2)) & 0x00ff00ff;
  }
  static FH_INLINE vi marks(const uint8_t* bp, int i) { return packed_signs(word(bp, 3 * i + 2)); }
  static FH_INLINE vi scale(const Scales&, const uint8_t* bp, int j) {
    return odd(i_shr<28>(word(bp, 3 * j + 2)));
  }
  static FH_INLINE vf d(const uint8_t*, const uint8_t* hp) {
    return f_load_f16((const uint16_t*)hp) * f_set(0.25f);
  }
};
struct IQ3_S : Book<IQ3_S, 32> {
  static constexpr int kWords = 27, kHead = 2;
  static constexpr bool kQuartets = true;
  static constexpr Levels kLevels = quartet_levels(1, 2, 15);
  static FH_INLINE constexpr const auto& book() { return kBookIQ3S; }
  static FH_INLINE vi pair(const uint8_t* bp, int p) {
    const vi high = i_shrv(word(bp, 1 + p / 16), p / 2 % 8 * 4 + p % 2);
    return (i_shrv(word(bp, 3 + p / 4 * 3 + p / 2 % 2), 8 * (p % 2)) & 0x00ff00ff) |
           (i_shl<8>(high) & 0x100) | (i_shl<22>(high) & 0x01000000);
  }
  static FH_INLINE vi marks(const uint8_t* bp, int i) { return word(bp, 5 + 3 * i); }
  static FH_INLINE vi scale(const Scales&, const uint8_t* bp, int j) {
    return odd(i_shrv(word(bp, 0), 4 * j) & 15);
  }
  static FH_INLINE vf d(const uint8_t*, const uint8_t* hp) {
    return f_load_f16((const uint16_t*)hp);
  }
};

// The three levels eight times, and the shift by one eighth then is 1: what is found is the level
// with 1 added, and 2 is taken off where the shift goes down. d / 8 times an odd number.
template <class F, int Sub>
struct IQ1 : Book<F, Sub> {
  static constexpr bool kQuartets = false;
  static constexpr Levels kLevels = octet_levels(-7, 1, 9);
  static FH_INLINE constexpr const auto& book() { return kBookIQ1; }
};
struct IQ1_S : IQ1<IQ1_S, 32> {
  static constexpr int kWords = 12, kHead = 2;
  static FH_INLINE vi half(const uint8_t* bp, int i) { return i_shrv(word(bp, i / 2), i % 2 * 16); }
  static FH_INLINE vi pair(const uint8_t* bp, int p) {
    const vi high = i_shrv(half(bp, p / 2), 3 * (p % 2));
    return (i_shrv(word(bp, 4 + p / 2), 8 * (p % 2)) & 0x00ff00ff) | (i_shl<8>(high) & 0x700) |
           (i_shl<18>(high) & 0x07000000);
  }
  static FH_INLINE vi marks(const uint8_t* bp, int i) {
    return -(i_shr<15>(half(bp, i)) & 1) & 0x02020202;
  }
  static FH_INLINE vi mark(vi w, vi marks, int) { return w - marks; }
  static FH_INLINE vi scale(const Scales&, const uint8_t* bp, int j) {
    return odd(i_shr<12>(half(bp, j)) & 7);
  }
  static FH_INLINE vf d(const uint8_t*, const uint8_t* hp) {
    return f_load_f16((const uint16_t*)hp) * f_set(0.125f);
  }
};
struct IQ1_M : IQ1<IQ1_M, 16> {
  static constexpr int kWords = 14;
  static FH_INLINE vi half(const uint8_t* bp, int i) {
    return i_shrv(word(bp, 2 + i / 2), i % 2 * 16);
  }
  static FH_INLINE vi pair(const uint8_t* bp, int p) {
    const vi high = i_shrv(half(bp, p / 2), 4 * (p % 2));
    return (i_shrv(word(bp, 6 + p / 2), 8 * (p % 2)) & 0x00ff00ff) | (i_shl<8>(high) & 0x700) |
           (i_shl<16>(high) & 0x07000000);
  }
  static FH_INLINE vi marks(const uint8_t* bp, int i) { return half(bp, i); }
  static FH_INLINE vi mark(vi w, vi nibbles, int n) {  // one nibble to an octet
    return w - (-(i_shrv(nibbles, n / 8 * 4 + 3) & 1) & 0x02020202);
  }
  static FH_INLINE vi scale(const Scales&, const uint8_t* bp, int j) {
    return odd(i_shrv(word(bp, j / 8), j / 4 % 2 * 16 + j % 4 * 3) & 7);
  }
  static FH_INLINE vf d(const uint8_t* bp, const uint8_t*) {  // a nibble on top of each half-word
    const vi a = word(bp, 0), b = word(bp, 1);
    const vi bits = (i_shr<12>(a) & 15) | (i_shr<24>(a) & 0xf0) | (i_shr<4>(b) & 0xf00) |
                    (i_shr<16>(b) & 0xf000);
    return f_f16_low(bits) * f_set(0.125f);
  }
};

}  // namespace
}  // namespace freehold
