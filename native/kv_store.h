// SPDX-License-Identifier: Apache-2.0
// Keys and values of all layers in one mapping: where each layer's blocks lie. What a block holds
// inside is isa/attention.inl's; numbers from outside are checked before they come here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace freehold {

struct KVShape {
  int num_kv_heads, key_dim, value_dim;
};

class KVStore {
 public:
  // Throws std::bad_alloc for more than there can be.
  KVStore(const std::vector<KVShape>& shapes, int64_t num_blocks, int block_size, KVType type);

  const std::vector<KVLayer>& layers() const { return layers_; }
  int64_t num_blocks() const { return num_blocks_; }
  size_t nbytes() const { return block_.size(); }

  // Block src[i] over block dst[i] in every layer, in order.
  void copy_blocks(const int32_t* src, const int32_t* dst, size_t count);

  // All bytes of one block, layer by layer: keys, values and the scales of both, head by head.
  size_t block_nbytes() const;
  void read_blocks(const int32_t* blocks, size_t count, uint8_t* out) const;
  void write_blocks(const int32_t* blocks, size_t count, const uint8_t* data);

 private:
  // move(place of the block in the store, bytes) for every stretch of a block, in order.
  template <class Move>
  void each_stretch(size_t block, Move move) const;

  PageBlock block_;
  std::vector<KVLayer> layers_;
  int64_t num_blocks_;
  size_t element_;  // bytes
};

}  // namespace freehold
