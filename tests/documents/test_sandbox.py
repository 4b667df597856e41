# SPDX-License-Identifier: Apache-2.0
"""Code that means harm, run by the sandbox; and the task that needs it."""

from __future__ import annotations

import ctypes
import json
import platform
import socket
import tempfile
from pathlib import Path

import pytest
from scripted import Scripted, always

from freehold.documents import Code, tasks
from freehold.documents.sandbox import Bounds, checked_path, run_tests
from freehold.documents.tasks.code import files_of
from freehold.errors import AnswerError, InvalidParameterError


def is_held() -> bool:
    """Whether this kernel can hold code at all."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(444, None, 0, 1)
    return version >= 1 and platform.machine() in ("x86_64", "aarch64")


held = pytest.mark.skipif(not is_held(), reason="the kernel has no Landlock")
SHORT = Bounds(seconds=1.0)


@held
def test_sound_code_passes_in_every_way_of_testing():
    tests = (
        "from pkg.double import double\nimport unittest\nassert double(2) == 4\n"
        "def test_more():\n    assert double(3) == 6\n"
        "class Case(unittest.TestCase):\n    def test_it(self):\n        "
        "self.assertEqual(double(1), 2)\n"
    )
    files = {"pkg/double.py": "def double(x):\n    return 2 * x\n"}
    verdict = run_tests(files, tests)
    assert verdict.passed, verdict.report
    assert verdict.layers == ("limits", "landlock", "seccomp")
    assert verdict.gaps == ()
    broken = {"pkg/double.py": "def double(x):\n    return x\n"}
    assert "AssertionError" in run_tests(broken, tests).report
    only_case = tests.replace("assert double(2) == 4", "").replace("assert double(3)", "assert 6")
    assert run_tests(broken, only_case).ended == "failed"


@held
@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("import os; os._exit(0)", "failed"),
        ("import sys; sys.exit(0)", "failed"),
        ("while True: pass", "time"),
        ("import time; time.sleep(60)", "time"),
        ("x = []\nwhile True: x.append(bytearray(10**7))", "memory"),
        ("import os\nwhile True: os.fork()", "failed"),
        ("import subprocess; subprocess.run(['true'])", "failed"),
        ("import os; os.execv('/bin/true', ['true'])", "failed"),
        ("import multiprocessing as m; m.Process(target=print).start()", "failed"),
        ("import os; os.kill(os.getppid(), 9)", "failed"),
        ("import os; os.kill(-1, 9)", "failed"),
        ("import os; print(os.listdir(os.path.expanduser('~root')))", "failed"),
        ("print(open('/etc/passwd').read())", "failed"),
        ("import os; os.symlink('/etc/passwd', 'x'); print(open('x').read())", "failed"),
        ("import os; os.chmod('/tmp', 0o777); open('/tmp/x', 'w')", "failed"),
        ("f = open('f', 'w')\nwhile True: f.write('x' * 10**6)", "failed"),
        ("for i in range(200): open(f'f{i}', 'w').write('x' * 10**6)", "disk"),
        ("import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))", "failed"),
        ("import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", "failed"),
        ("import ctypes; ctypes.string_at(0)", "failed"),
        ("def (", "failed"),
    ],
    ids=range(21),
)  # fmt: skip
def test_hostile_code_ends_by_itself_or_is_ended(code, ended):
    verdict = run_tests({}, code, SHORT)
    assert verdict.ended in (ended, "time")  # a machine may be too busy to get to the point
    assert not verdict.passed
    assert len(verdict.report) <= 4000


@held
def test_nothing_is_written_outside_and_nobody_is_reached():
    outside = Path(tempfile.mkdtemp())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        for code in (
            f"import socket; socket.create_connection(('127.0.0.1', {port}))",
            f"import socket; socket.socket(socket.AF_UNIX).connect('{outside}/s')",
            f"open('{outside}/evil', 'w').write('x')",
            f"import os; os.mkdir('{outside}/evil')",
            f"import os; os.rename('tests.py', '{outside}/evil')",
            "import ctypes; l = ctypes.CDLL(None); assert l.syscall(41, 2, 1, 0) >= 0",
            "import ctypes; l = ctypes.CDLL(None); assert l.unshare(0x10000000) == 0",
        ):
            assert run_tests({"tests.py": ""}, code).ended == "failed", code
        with pytest.raises(TimeoutError):
            server.accept()
    assert not list(outside.iterdir())
    outside.rmdir()


@held
def test_ordinary_python_works_there():
    code = (
        "import json, re, math, random, decimal, datetime, dataclasses, threading, zoneinfo, csv\n"
        "import sqlite3, tempfile, pathlib, asyncio\n"
        "done = []\nt = threading.Thread(target=lambda: done.append(1)); t.start(); t.join()\n"
        "assert done == [1]\npathlib.Path('a/b').mkdir(parents=True)\n"
        "pathlib.Path('a/b/c').write_text('ä'); assert open('a/b/c').read() == 'ä'\n"
        "random.random(); sqlite3.connect('x.db').execute('create table t (a)')\n"
    )
    verdict = run_tests({}, code)
    assert verdict.passed, verdict.report


@held
@pytest.mark.parametrize(
    "tests",
    [
        "class TestX:\n    def test_it(self):\n        assert False\n",
        "class TestX:\n    def setup_method(self):\n        self.x = 1\n"
        "    def test_a(self):\n        assert self.x == 2\n",
        "async def test_it():\n    assert False\n",
        "def test_it():\n    yield\n    assert False\n",
        "class TestX:\n    async def test_it(self):\n        assert False\n",
    ],
)
def test_no_kind_of_test_is_passed_over(tests):
    assert run_tests({}, tests, SHORT).ended == "failed"
    assert run_tests({}, "class TestX:\n    def test_it(self):\n        assert True\n").passed


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("x = 1\n", "nothing in the tests can fail"),
        ("def tset_it():\n    print(1)\n", "nothing in the tests can fail"),
        ("def test_(:\n", "not Python"),
        ("a\0b", "not Python"),
    ],
)
def test_tests_that_test_nothing_are_refused(tests, why):
    with pytest.raises(InvalidParameterError, match=why):
        Code(tests)
    for sound in ("assert f() == 1\n", "import sys\nif 1:\n    sys.exit(1)\n", "t.assertTrue(1)\n"):
        Code(sound)


@pytest.mark.parametrize("layer", ["landlock", "seccomp"])
def test_where_the_kernel_cannot_hold_it_nothing_runs_unless_asked(layer, tmp_path):
    told = run_tests({}, "open('ran', 'w')", without=(layer,))
    assert told.ended == "refused"
    assert layer in told.report
    weak = Bounds(strict=False)
    verdict = run_tests({}, "x = 1", weak, without=(layer,))
    assert verdict.passed
    assert any(gap.startswith(layer) for gap in verdict.gaps)
    if layer == "seccomp":
        assert "audit hook" in verdict.layers
        code = "import socket; socket.create_connection(('127.0.0.1', 9))"
        assert "not allowed here" in run_tests({}, code, weak, without=(layer,)).report


@pytest.mark.parametrize(
    "name", ["", "/etc/x", "../x", "a/../../x", "a\0b", "C:x", ".git/hooks/x", "-rf", "a/", "a\\b"]
)
def test_paths_that_leave_the_folder(name):
    with pytest.raises(InvalidParameterError):
        checked_path(name)
    with pytest.raises(InvalidParameterError):
        run_tests({name: "x"}, "pass")


# -- the task -------------------------------------------------------------------------------------

TESTS = "from solution import double\ndef test_it():\n    assert double(4) == 8\n"
GOOD = "Here:\n```python solution.py\ndef double(x):\n    return 2 * x\n```\n"
BAD = GOOD.replace("2 * x", "x")


@held
def test_tests_decide_and_failures_are_shown_to_the_model():
    replies = iter([BAD, GOOD])
    asker = Scripted(lambda prompt: next(replies), context=4000)
    task = Code(tests=TESTS, attempts=3)
    (answer,) = tasks.run(task, asker, ["Write double(x)."])
    assert answer.value["passed"] is True
    assert answer.value["attempts"] == 2
    assert "2 * x" in answer.value["files"]["solution.py"]
    assert answer.value["isolation"] == ["limits", "landlock", "seccomp"]
    assert "AssertionError" in asker.prompts[1]
    assert tasks.from_spec("code", json.loads(json.dumps(task.spec()))) == task


@held
def test_what_never_passes_is_an_error_with_the_reason():
    (answer,) = tasks.run(Code(tests=TESTS, attempts=2), always(BAD, context=4000), ["Double."])
    assert isinstance(answer.error, AnswerError)
    assert "AssertionError" in answer.error.message
    assert "after 2 attempts" in answer.error.message
    loop = "```solution.py\nwhile True: pass\n```"
    task = Code(tests=TESTS, bounds=SHORT)
    (answer,) = tasks.run(task, always(loop, context=4000), ["Double."])
    assert "too long" in answer.error.message


def test_files_are_taken_from_fences():
    two = "```python a.py\nx = 1\n```\ntext\n~~~ data/b.txt\nhello\n~~~\n"
    assert files_of(two, "s.py") == {"a.py": "x = 1\n", "data/b.txt": "hello\n"}
    assert files_of("```python\nx = 1\n```", "s.py") == {"s.py": "x = 1\n"}
    assert files_of("x = 1", "s.py") == {"s.py": "x = 1\n"}
    for bad in ("", "```python\nx", "```../a.py\nx\n```", "```a.py\n1\n```\n```a.py\n2\n```",
                "```\n1\n```\n```\n2\n```"):  # fmt: skip
        with pytest.raises(AnswerError):
            files_of(bad, "s.py")


def test_files_that_are_there_are_shown():
    asker = always("```a.py\nimport helper\n```", context=4000)
    (answer,) = tasks.run(Code(files={"helper.py": "y = 3\n"}), asker, ["Use helper."])
    assert "```helper.py\ny = 3\n```" in asker.prompts[0]
    assert answer.value == {
        "files": {"a.py": "import helper\n"}, "passed": None, "attempts": 1, "isolation": [],
    }  # fmt: skip
    (answer,) = tasks.run(Code(), always("```a.py\ndef (\n```", context=4000), ["x"])
    assert "not valid Python" in answer.error.message
    for wrong in ({"path": "../x"}, {"files": {"/x": ""}}, {"attempts": 0}):
        with pytest.raises(InvalidParameterError):
            Code(**wrong)
