// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <sys/mman.h>

#include <new>
#include <utility>

namespace freehold {

PageBlock::PageBlock(size_t bytes, Pages pages) {
  constexpr size_t kHuge = size_t(2) << 20;
  if (bytes == 0) return;
  if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
  const bool small = pages == Pages::kOrdinary || bytes < kHuge;
  size_ = small ? (bytes + 4095) & ~size_t(4095) : (bytes + kHuge - 1) & ~(kHuge - 1);
  map_size_ = small ? size_ : size_ + kHuge;
  void* p = mmap(nullptr, map_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  map_ = p;
  data_ =
      small
          ? static_cast<uint8_t*>(p)
          : reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(p) + kHuge - 1) & ~(kHuge - 1));
#if defined(MADV_HUGEPAGE)
  // advice: refusal costs speed only. Where the kernel hands out huge pages unasked, ordinary ones
  // must be asked for.
  if (pages == Pages::kOrdinary)
    madvise(data_, size_, MADV_NOHUGEPAGE);
  else if (!small)
    madvise(data_, size_, MADV_HUGEPAGE);
#endif
}

PageBlock::~PageBlock() {
  if (map_) munmap(map_, map_size_);
}

PageBlock& PageBlock::operator=(PageBlock&& other) noexcept {
  std::swap(map_, other.map_);
  std::swap(map_size_, other.map_size_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

uint8_t* Arena::allocate(size_t bytes) {
  if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
  bytes = (bytes + 63) & ~size_t(63);
  if (chunks_.empty() || chunks_.back().size() - offset_ < bytes) {
    chunks_.emplace_back(bytes > kChunk ? bytes : kChunk);
    offset_ = 0;
  }
  uint8_t* p = chunks_.back().data() + offset_;
  offset_ += bytes;
  used_ += bytes;
  return p;
}

}  // namespace freehold
