// SPDX-License-Identifier: Apache-2.0
// A persistent pool. Work is handed out by an atomic counter, so that a core slowed by a
// neighbour takes less of it. Workers spin briefly between operations (an op follows the last
// one within microseconds), then sleep.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace freehold {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return int(workers_.size()) + 1; }

  // Calls fn(task, thread) for task in [0, tasks), thread in [0, size()); returns when all are
  // done. fn must not throw. Calls do not nest and come from one thread at a time.
  template <class Fn>
  void run(int64_t tasks, Fn&& fn) {
    if (tasks <= 0) return;
    if (workers_.empty() || tasks == 1) {
      for (int64_t i = 0; i < tasks; ++i) fn(i, 0);
      return;
    }
    dispatch(
        tasks,
        [](void* f, int64_t task, int thread) {
          (*static_cast<std::remove_reference_t<Fn>*>(f))(task, thread);
        },
        const_cast<void*>(static_cast<const void*>(&fn)));
  }

 private:
  using Trampoline = void (*)(void*, int64_t, int);
  void dispatch(int64_t tasks, Trampoline call, void* arg);
  void worker(int index);
  void drain(int index);

  std::vector<std::thread> workers_;
  Trampoline call_ = nullptr;
  void* arg_ = nullptr;
  int64_t tasks_ = 0;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint64_t> epoch_{0};
  alignas(64) std::atomic<int> active_{0};
  alignas(64) std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace freehold
