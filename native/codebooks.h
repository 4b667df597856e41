// SPDX-License-Identifier: Apache-2.0
// The codebooks of the IQ1, IQ2 and IQ3 types: combinations of levels that an index may name.
// The same sets as in quants/_grids.py, which says what they are; tests compare the two.
#pragma once
#include <cstdint>

namespace freehold {

// An entry of eight values holds two bits for each: values 0, 1, 4, 5 in the lower byte, lowest
// first, the others in the upper one. An entry of four holds a nibble for each, lowest first. Both
// orders are those in which isa/codebooks.inl spreads an entry to bytes with the fewest steps.
template <int N>
struct Codebook {
  alignas(64) uint16_t entries[N];
};

extern const Codebook<2048> kBookIQ1;
extern const Codebook<256> kBookIQ2XXS;
extern const Codebook<512> kBookIQ2XS;
extern const Codebook<1024> kBookIQ2S;
extern const Codebook<256> kBookIQ3XXS;
extern const Codebook<512> kBookIQ3S;

}  // namespace freehold
