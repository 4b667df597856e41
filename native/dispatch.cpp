// SPDX-License-Identifier: Apache-2.0
#include "dispatch.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace freehold {

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> levels{kernels_baseline()};
#if defined(__x86_64__)
  // The compiler's run-time checks include the operating system's support for the wide state.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (avx2) levels.push_back(kernels_avx2());
#if defined(FREEHOLD_HAVE_AVXVNNI)
  if (avx2 && __builtin_cpu_supports("avxvnni")) levels.push_back(kernels_avxvnni());
#endif
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  if (avx512) levels.push_back(kernels_avx512());
  if (avx512 && __builtin_cpu_supports("avx512bf16")) levels.push_back(kernels_avx512_bf16());
#elif defined(__aarch64__) && defined(FREEHOLD_HAVE_NEON)
#if defined(__linux__)
  constexpr unsigned long kAsimdDp = 1ul << 20;  // HWCAP_ASIMDDP
  if (getauxval(AT_HWCAP) & kAsimdDp) levels.push_back(kernels_neon());
#else
  levels.push_back(kernels_neon());  // every Apple processor of this architecture has it
#endif
#endif
  return levels;
}

}  // namespace freehold
