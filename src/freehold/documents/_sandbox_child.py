# SPDX-License-Identifier: Apache-2.0
"""The process in which a stranger's code runs: gives up what it could do harm with, then runs it.

Stands alone: it is started by its path, isolated, without site packages. First the limits of the
kernel on time, memory and files, then Landlock (the file system: its own folder, and reading what
Python needs), then seccomp (no sockets, no other processes, no signals, no way to get any of it
back). What could not be done is told on the pipe before anything runs; who started this decides.
The code can fool its own tests, as it shares a process with them; it cannot reach beyond.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import struct
import sys
import traceback
from typing import Any

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # on every architecture
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute (map code), read files, list folders
# Rights over files that the versions of Landlock know: bits 0 to n - 1.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_FILES_ONLY = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
READABLE = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo",
             "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/zero", "/dev/urandom",
             "/dev/random")  # fmt: skip

_THREAD = 0x00010000  # CLONE_THREAD
_EPERM, _ENOSYS = 1, 38
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
# Sockets; processes; signals and other processes' memory; namespaces and mounts; ways around all of
# these; limits; memory that no limit counts; the machine.
_DENIED: dict[str, tuple[int, dict[str, int], list[int]]] = {
    "x86_64": (0xC000003E, {"clone": 56, "clone3": 435}, [
        41, 53, 57, 58, 59, 322, 62, 200, 234, 129, 297, 424, 434, 438, 101, 310, 311, 272, 308,
        165, 166, 155, 161, 428, 429, 430, 431, 432, 442, 425, 426, 427, 321, 248, 249, 250, 298,
        323, 303, 304, 160, 302, 29, 30, 31, 64, 68, 240, 319, 447, 300, 164, 227, 159, 305, 170,
        171, 169, 163, 167, 168, 175, 313, 176, 246, 320, 172, 173, 141, 142, 144, 203, 251, 314,
    ]),
    "aarch64": (0xC00000B7, {"clone": 220, "clone3": 435}, [
        198, 199, 221, 281, 129, 130, 131, 138, 240, 424, 434, 438, 117, 270, 271, 97, 268, 40,
        39, 41, 51, 428, 429, 430, 431, 432, 442, 425, 426, 427, 280, 217, 218, 219, 241, 282,
        264, 265, 164, 261, 194, 195, 196, 190, 186, 180, 279, 447, 262, 170, 112, 171, 266, 161,
        162, 142, 89, 224, 225, 105, 273, 106, 104, 294, 140, 118, 119, 122, 30, 274,
    ]),
}  # fmt: skip


def main() -> None:
    """Told what to do by one line of JSON on stdin."""
    told = json.loads(sys.stdin.buffer.readline())
    pipe = told["pipe"]
    os.chdir(told["folder"])
    layers, gaps = _give_up(told)
    os.write(pipe, json.dumps({"layers": layers, "gaps": gaps}).encode() + b"\n")
    if gaps and told["strict"]:
        os._exit(3)
    code = 1
    try:
        _run(told["program"])
        code = 0
    except SystemExit as left:
        sys.stderr.write(f"the code ended the process with {left.code!r:.100}\n")
    except BaseException:
        _tell()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        code = 1
    if code == 0:
        os.write(pipe, told["token"].encode())
    os._exit(code)


def _run(path: str) -> None:
    """The file, then the tests it defines: functions called test…, classes called Test…, and cases
    of unittest."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as little as can be is imported
        source = file.read()
    scope: dict[str, Any] = {"__name__": "tests", "__file__": path}
    exec(compile(source, path, "exec"), scope)
    for name, value in list(scope.items()):
        if name.startswith("test") and callable(value) and not isinstance(value, type):
            _call(name, value)
        elif name.startswith("Test") and isinstance(value, type) and not _is_case(value):
            _run_class(value)
    if "unittest" in sys.modules:
        import unittest

        suite = unittest.TestSuite(
            unittest.defaultTestLoader.loadTestsFromTestCase(value)
            for value in scope.values()
            if isinstance(value, type) and _is_case(value)
        )
        if suite.countTestCases():
            result = unittest.TextTestRunner(stream=sys.stderr).run(suite)
            if not result.wasSuccessful():
                raise SystemExit("failed tests")


def _run_class(kind: type) -> None:
    """Each test of a class on an object of its own."""
    for name in dir(kind):
        if name.startswith("test"):
            case = kind()
            getattr(case, "setup_method", lambda: None)()
            _call(f"{kind.__name__}.{name}", getattr(case, name))


def _call(name: str, test: Any) -> None:
    """A function that only promises to test must not count as one that did."""
    result = test()
    if hasattr(result, "__await__") or hasattr(result, "__anext__") or hasattr(result, "send"):
        raise TypeError(f"{name} is async or a generator, and cannot be run here")


def _is_case(kind: type) -> bool:
    unittest = sys.modules.get("unittest")
    return unittest is not None and issubclass(kind, unittest.TestCase)


def _tell() -> None:
    kind, error, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    own = [frame for frame in frames if frame.filename != __file__]
    sys.stderr.write("".join(traceback.format_list(own[-6:])))
    sys.stderr.write("".join(traceback.format_exception_only(kind, error)))


# -- giving up ------------------------------------------------------------------------------------


def _give_up(told: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What holds the code, and what should and does not."""
    layers, gaps = ["limits"], []
    for what, most in (
        (resource.RLIMIT_CPU, told["seconds"]), (resource.RLIMIT_AS, told["memory"]),
        (resource.RLIMIT_FSIZE, told["file_bytes"]), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_NPROC, 64),
    ):  # fmt: skip
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    steps: tuple[tuple[str, Any, str], ...] = (
        ("landlock", lambda: _landlock(libc, told["folder"], told["readable"]),
         "files of this user could be read and written"),
        ("seccomp", lambda: _seccomp(libc), "the network and other processes could be reached"),
    )  # fmt: skip
    without = told.get("without", ())
    for name, step, harm in steps:
        try:
            if name in without:
                raise OSError("it is turned off")
            step()
            layers.append(name)
        except OSError as error:
            gaps.append(f"{name} is not there ({error}), so {harm}")
    if "seccomp" not in layers:
        _watch()
        layers.append("audit hook")
    return layers, gaps


def _watch() -> None:
    """The least that can be done without the kernel: sockets and processes are refused by Python
    itself. Code that means harm gets around this."""

    def refuse(event: str, _: Any) -> None:
        if event.startswith(("socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn",
                             "os.system", "os.kill", "ctypes.dlopen")):  # fmt: skip
            raise PermissionError(f"{event} is not allowed here")

    sys.addaudithook(refuse)


def _landlock(libc: Any, folder: str, readable: list[str]) -> None:
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        raise OSError(ctypes.get_errno(), "the kernel has no Landlock")
    rights = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    values = [rights]
    if version >= 4:
        values.append(0b11)  # binding and connecting TCP
    if version >= 6:
        values.append(0b11)  # abstract sockets and signals of others
    attributes = struct.pack(f"{len(values)}Q", *values)
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "no set of rules can be made")
    own = rights & ~(1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 15)  # no devices, sockets, pipes
    for path, allowed in [(folder, own), *((path, _READ & rights) for path in readable)]:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not every system has all of them
        if not os.path.isdir(path):  # noqa: PTH112
            allowed &= _FILES_ONLY
        rule = struct.pack("=Qi", allowed, opened)
        failed = libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0)
        os.close(opened)
        if failed:
            raise OSError(ctypes.get_errno(), f"no rule can be made for {path}")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "privileges cannot be given up")
    if libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0):
        raise OSError(ctypes.get_errno(), "the rules cannot be put in force")
    os.close(ruleset)


def _seccomp(libc: Any) -> None:
    known = _DENIED.get(platform.machine())
    if known is None:
        raise OSError(f"no list of system calls is known for {platform.machine()}")
    arch, clone, denied = known
    load, equal, greater, anybit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    program: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4), (equal, 1, 0, arch), (give, 0, 0, _KILL),
        (load, 0, 0, 0),
        (greater, 0, 1, 0x40000000), (give, 0, 0, _KILL),  # the other numbering of x86-64
        (equal, 0, 1, clone["clone3"]), (give, 0, 0, _ERRNO | _ENOSYS),  # glibc then takes clone
        (equal, 0, 4, clone["clone"]), (load, 0, 0, 16), (anybit, 0, 1, _THREAD),
        (give, 0, 0, _ALLOW), (give, 0, 0, _ERRNO | _EPERM),
    ]  # fmt: skip
    for number in denied:
        program += [(equal, 0, 1, number), (give, 0, 0, _ERRNO | _EPERM)]
    program.append((give, 0, 0, _ALLOW))
    code = b"".join(struct.pack("HBBI", *each) for each in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "privileges cannot be given up")
    if libc.prctl(_PR_SET_SECCOMP, _FILTER, header, 0, 0):
        raise OSError(ctypes.get_errno(), "the filter cannot be put in force")


if __name__ == "__main__":
    main()
