#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Cross-compile the kernels for aarch64 and check the NEON level under qemu.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/neon
mkdir -p "$out"
cxx="aarch64-linux-gnu-g++ -std=gnu++20 -O2 -ffp-contract=off -fno-math-errno -fno-trapping-math -Wall -Wextra"
isa="$cxx -Wno-maybe-uninitialized -Wno-uninitialized -fno-exceptions -fno-rtti -c native/isa/kernels.cpp"
$isa -DFH_NAME='"baseline"' -DFH_TABLE=kernels_baseline -o "$out/baseline.o" &
$isa -DFH_NAME='"neon"' -DFH_TABLE=kernels_neon -DFH_ISA_NEON -march=armv8.2-a+dotprod+fp16 -o "$out/neon.o" &
wait -n
wait -n
sources=$(find native -maxdepth 1 -name '*.cpp' ! -name 'module*.cpp')
$cxx -DFREEHOLD_HAVE_NEON tests/native/kernel_check.cpp $sources "$out/baseline.o" "$out/neon.o" \
  -static -pthread -o "$out/kernel_check"
qemu-aarch64 -cpu max "$out/kernel_check" | tee "$out/log"
grep -q "level neon" "$out/log"
