// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "kernels.h"

namespace freehold {

// Kernel levels this build holds and this processor (and its operating system) can run, slowest
// first. The last one is the default.
std::vector<const Kernels*> available_kernels();

}  // namespace freehold
