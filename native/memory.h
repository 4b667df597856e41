// SPDX-License-Identifier: Apache-2.0
// Large anonymous memory. For weights in huge pages: on virtual machines these alone are worth
// 20-40 % of read bandwidth, because a miss in the translation buffer walks two page tables. The
// cache of keys and values lies in ordinary pages: attention reads it no slower (measured at depth
// 2048), and a page is only occupied once a token is written to it, where a huge page would hold
// the blocks of a thousand tokens to come.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace freehold {

enum class Pages { kHuge, kOrdinary };

// One zeroed mapping; in huge pages (blocks of 2 MiB or more) it is aligned to them. Occupies
// memory as it is written. Throws std::bad_alloc.
class PageBlock {
 public:
  PageBlock() = default;
  explicit PageBlock(size_t bytes, Pages pages = Pages::kHuge);
  ~PageBlock();
  PageBlock(PageBlock&& other) noexcept { *this = static_cast<PageBlock&&>(other); }
  PageBlock& operator=(PageBlock&& other) noexcept;
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* map_ = nullptr;
  size_t map_size_ = 0;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// Bump allocator over huge pages. They are only occupied once written, so a chunk's unused tail
// costs nothing.
class Arena {
 public:
  uint8_t* allocate(size_t bytes);  // 64-byte aligned, zeroed
  size_t used() const { return used_; }

 private:
  static constexpr size_t kChunk = size_t(256) << 20;
  std::vector<PageBlock> chunks_;
  size_t offset_ = 0;
  size_t used_ = 0;
};

// Reused buffer that only grows; contents are not kept.
class Scratch {
 public:
  uint8_t* get(size_t bytes) {
    if (bytes > block_.size()) {
      block_ = PageBlock();
      block_ = PageBlock(bytes + bytes / 4);
    }
    return block_.data();
  }

 private:
  PageBlock block_;
};

}  // namespace freehold
