// SPDX-License-Identifier: Apache-2.0
#include "kv_store.h"

#include <algorithm>
#include <new>

namespace freehold {

KVStore::KVStore(const std::vector<KVShape>& shapes, int64_t num_blocks, int block_size,
                 KVType type)
    : num_blocks_(num_blocks),
      element_(type == KVType::F32    ? 4
               : type == KVType::Q8_0 ? 1
                                      : 2) {
  size_t bytes = 0;
  std::vector<size_t> at;
  for (const KVShape& s : shapes) {
    const size_t tokens = size_t(num_blocks) * size_t(block_size) * size_t(s.num_kv_heads);
    for (int part = 0; part < 4; ++part) {  // keys, values, and the scales of both
      const size_t dim = size_t(part % 2 ? s.value_dim : s.key_dim);
      const size_t size =
          part < 2 ? tokens * dim * element_ : (type == KVType::Q8_0 ? tokens * (dim / 32) * 2 : 0);
      if (size > size_t(1) << 46) throw std::bad_alloc();
      at.push_back(bytes);
      bytes += (size + 127) & ~size_t(63);  // a spare line: vector loads may read past the end
    }
  }
  block_ = PageBlock(bytes, Pages::kOrdinary);
  uint8_t* base = block_.data();
  for (size_t i = 0; i < shapes.size(); ++i) {
    const KVShape& s = shapes[i];
    layers_.push_back({type, s.num_kv_heads, s.key_dim, s.value_dim, block_size, num_blocks,
                       base + at[4 * i], base + at[4 * i + 1],
                       reinterpret_cast<uint16_t*>(base + at[4 * i + 2]),
                       reinterpret_cast<uint16_t*>(base + at[4 * i + 3])});
  }
}

template <class Move>
void KVStore::each_stretch(size_t block, Move move) const {
  for (const KVLayer& l : layers_) {
    const size_t tokens = size_t(l.block_size);
    const auto heads = [&](uint8_t* base, size_t bytes) {
      for (int h = 0; h < l.num_kv_heads; ++h)
        move(base + (size_t(h) * size_t(l.num_blocks) + block) * bytes, bytes);
    };
    heads(l.k, tokens * size_t(l.key_dim) * element_);
    heads(l.v, tokens * size_t(l.value_dim) * element_);
    if (l.type == KVType::Q8_0) {
      heads(reinterpret_cast<uint8_t*>(l.k_scale), tokens * size_t(l.key_dim / 32) * 2);
      heads(reinterpret_cast<uint8_t*>(l.v_scale), tokens * size_t(l.value_dim / 32) * 2);
    }
  }
}

size_t KVStore::block_nbytes() const {
  size_t total = 0;
  each_stretch(0, [&](uint8_t*, size_t bytes) { total += bytes; });
  return total;
}

void KVStore::read_blocks(const int32_t* blocks, size_t count, uint8_t* out) const {
  for (size_t i = 0; i < count; ++i)
    each_stretch(size_t(blocks[i]), [&](uint8_t* place, size_t bytes) {
      std::copy_n(place, bytes, out);
      out += bytes;
    });
}

void KVStore::write_blocks(const int32_t* blocks, size_t count, const uint8_t* data) {
  for (size_t i = 0; i < count; ++i)
    each_stretch(size_t(blocks[i]), [&](uint8_t* place, size_t bytes) {
      std::copy_n(data, bytes, place);
      data += bytes;
    });
}

void KVStore::copy_blocks(const int32_t* src, const int32_t* dst, size_t count) {
  for (const KVLayer& l : layers_)
    for (size_t i = 0; i < count; ++i) {
      if (src[i] == dst[i]) continue;
      const size_t tokens = size_t(l.block_size);
      const auto move = [&](uint8_t* base, size_t bytes) {
        for (int h = 0; h < l.num_kv_heads; ++h, base += bytes * size_t(l.num_blocks))
          std::copy_n(base + size_t(src[i]) * bytes, bytes, base + size_t(dst[i]) * bytes);
      };
      move(l.k, tokens * size_t(l.key_dim) * element_);
      move(l.v, tokens * size_t(l.value_dim) * element_);
      if (l.type == KVType::Q8_0) {
        move(reinterpret_cast<uint8_t*>(l.k_scale), tokens * size_t(l.key_dim / 32) * 2);
        move(reinterpret_cast<uint8_t*>(l.v_scale), tokens * size_t(l.value_dim / 32) * 2);
      }
    }
}

}  // namespace freehold
