#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The native code under AddressSanitizer and UBSan: a plain program over every kernel level this
# processor runs, then the extension module itself through the op sweep in Python.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-$PWD/.venv/bin}
out=$PWD/build/sanitize
mkdir -p "$out"
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1

site=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
if [ ! -x "$out/venv/bin/python" ]; then
  "$bin/python" -m venv --without-pip "$out/venv"
fi
# The libraries of the main environment, but not its freehold: a plain path line is not searched
# for the hooks of editable installations.
own=$("$out/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$site" > "$own/libraries.pth"
PATH="$bin:$PATH" "$bin/python" -m pip --quiet install --no-build-isolation --no-deps --upgrade \
  --target "$own" -C build-dir="$out/build" -C cmake.define.FREEHOLD_SANITIZE=ON .

objects=$(find "$out/build" -path '*isa_*' -name 'kernels.cpp.o')
vnni=$(find "$out/build" -path '*isa_avxvnni*' -name 'kernels.cpp.o' | grep -q . && echo -DFREEHOLD_HAVE_AVXVNNI || true)
sources=$(find native -maxdepth 1 -name '*.cpp' ! -name 'module*.cpp')
# shellcheck disable=SC2086
g++ -std=gnu++20 -O1 -g1 $vnni -fsanitize=address,undefined -fno-sanitize-recover=undefined \
  tests/native/kernel_check.cpp $sources \
  $objects -pthread -o "$out/kernel_check"
"$out/kernel_check"

# The program above was on every level; what only Python asks for is asked of the plain one, which
# the sanitizers see best, and of the one that people run.
best=$("$bin/python" -c 'from freehold.backends import cpu; print(cpu.available_isas()[-1])')
# libstdc++ as well: the sanitizer looks for the real __cxa_throw when it starts.
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)" "$out/venv/bin/python" -m pytest -n auto -p no:cacheprovider \
  tests/ops/test_op_sweep.py tests/ops/test_moe_ops.py tests/ops/test_low_rank.py -k "cpu-baseline or cpu-$best"
