// SPDX-License-Identifier: Apache-2.0
#include "kernels.h"

namespace freehold {

const QuantLayout& quant_layout(QType type) {
  // block, bytes, head_off, word_off, words
  static const QuantLayout table[int(QType::kCount)] = {
      /* F32    */ {1, 4, -1, 0, 1},
      /* F16    */ {1, 2, -1, 0, 0},
      /* BF16   */ {1, 2, -1, 0, 0},
      /* Q8_0   */ {32, 34, 0, 2, 8},
      /* Q4_0   */ {32, 18, 0, 2, 4},
      /* Q4_1   */ {32, 20, -1, 0, 5},
      /* Q5_0   */ {32, 22, 0, 2, 5},
      /* Q5_1   */ {32, 24, -1, 0, 6},
      /* Q2_K   */ {256, 84, -1, 0, 21},
      /* Q3_K   */ {256, 110, 108, 0, 27},
      /* Q4_K   */ {256, 144, -1, 0, 36},
      /* Q5_K   */ {256, 176, -1, 0, 44},
      /* Q6_K   */ {256, 210, 208, 0, 52},
      /* IQ4_NL */ {32, 18, 0, 2, 4},
      /* IQ4_XS */ {256, 136, -1, 0, 34},
  };
  return table[int(type)];
}

}  // namespace freehold
