# SPDX-License-Identifier: Apache-2.0
"""Reading in other processes: order, and what a file that ends its process leads to.

How a process dies is played by a stand-in for the PDF library, which the reader's process imports
in its place; what it does is written in the file it is given.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from office_files import zipped

from freehold import documents
from freehold.documents import (
    Caps,
    Document,
    Limits,
    Unread,
    _reading_wire,
    read,
    read_all,
    reading,
)
from freehold.errors import (
    CapacityError,
    DocumentError,
    DocumentTooLargeError,
    ReaderCrashError,
    UnsupportedDocumentError,
)

STAND_IN = """
import ctypes, os, signal, socket, time

def PdfDocument(file):
    what = file.read().split()[1].decode()
    if what == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "abort":
        os.abort()
    if what == "exit":
        os._exit(3)
    if what == "hang":
        ctypes.CDLL(None).pause()  # in C, where no exception reaches
    if what == "fill":
        pieces = [bytes(1_000_000) for _ in range(10_000)]
    if what == "lie":
        os.write(3, b"\\xff\\xff\\xff\\xff")  # the pipe of the answers
        time.sleep(60)
    if what == "print":
        print("a library's warning", flush=True)
    if what == "look":
        raise KeyError(os.environ.get("FREEHOLD_SECRET"))
    if what == "call":
        socket.create_connection(("127.0.0.1", 9), 5)
    if what == "write":
        os.write(os.open(file.name + ".out", os.O_CREAT | os.O_WRONLY), b"x")
    raise KeyError(what)

class PdfiumError(Exception):
    pass
"""


def may_leave_network() -> bool:
    flags = 0x40000000 | (0x10000000 if os.geteuid() else 0)
    program = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({flags}) != 0)"
    return subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """A folder in which PDF files do what is written in them."""
    place = tmp_path / "modules"
    place.mkdir()
    (place / "pypdfium2.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(place))
    return tmp_path


def texts(found: list[Document | Unread]) -> list[str]:
    return [type(x.error).__name__ if isinstance(x, Unread) else x.text for x in found]


def test_documents_come_in_order_from_all_processes(tmp_path):
    paths = []
    for number in range(60):
        lines = 2000 if number % 7 == 0 else 1
        paths.append(tmp_path / f"{number}.csv")
        paths[-1].write_text("text,n\n" + "".join(f"{number},{i}\n" for i in range(lines)))
    found = list(read_all(paths, processes=3, caps=Caps(files=9)))
    assert found == [document for path in paths for document in documents.readers.read(path)]


def test_what_cannot_be_read_stands_in_its_place(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.txt").write_text("three")
    names = ["a.txt", "b.json", "missing.txt", "nul\0.txt", "x.exe", "c.txt"]
    found = list(read_all(tmp_path / name for name in names))
    assert [Path(x.source).name for x in found] == names
    assert texts(found) == [
        "one", "MalformedDocumentError", "DocumentError", "DocumentError",
        "UnsupportedDocumentError", "three",
    ]  # fmt: skip
    with pytest.raises(UnsupportedDocumentError, match=r"x\.exe: there is no reader"):
        next(read(tmp_path / "x.exe"))


def test_a_name_that_is_no_unicode(tmp_path):
    path = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.txt")
    Path(path).write_text("au lait")
    (document,) = read(path)
    assert document.text == "au lait"
    assert document.source == f"{tmp_path}/caf\\xe9.txt"


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("signal", ReaderCrashError, "SIGSEGV"),
        ("exit", ReaderCrashError, "exit status 3"),
        ("abort", DocumentTooLargeError, "needs more than 300 MB of memory"),
        ("hang", DocumentTooLargeError, "more than 0.5 seconds"),
        ("fill", DocumentTooLargeError, "more than 300 MB of memory"),
        ("lie", ReaderCrashError, "died"),
        ("print", ReaderCrashError, "KeyError: 'print'"),
        ("write", ReaderCrashError, "File too large"),
        ("look", ReaderCrashError, "KeyError: None"),
        ("call", ReaderCrashError, "Network is unreachable"),
    ],
)
def test_a_deadly_file_is_an_error_of_its_own(what, kind, words, deadly, monkeypatch):
    if what == "call" and not may_leave_network():
        pytest.skip("this system gives users no network namespaces")
    monkeypatch.setenv("FREEHOLD_SECRET", "key")
    for name in ("a", "c"):
        (deadly / f"{name}.txt").write_text(name)
    (deadly / "b.pdf").write_text(f"%PDF {what}")
    caps = Caps(seconds=0.5 if what == "hang" else 60, memory=300_000_000)
    first, second, third = read_all(
        [deadly / "a.txt", deadly / "b.pdf", deadly / "c.txt"], caps=caps, processes=1
    )
    assert (first.text, third.text) == ("a", "c")
    assert type(second.error) is kind
    assert words in second.error.message
    assert second.source == str(deadly / "b.pdf")
    assert second.error.message.startswith(second.source)


def test_in_an_archive_the_member_is_what_fails(deadly):
    members = {"a.txt": "a", "b.pdf": "%PDF signal", "c.csv": "x,y\n1,2\n", "d.pdf": "%PDF print"}
    (deadly / "z.zip").write_bytes(zipped({**members, "in/e.pdf": "%PDF exit", "f.txt": "f"}))
    (deadly / "after.txt").write_text("after")
    found = list(read_all([deadly / "z.zip", deadly / "after.txt"], processes=1))
    assert texts(found) == [
        "a", "ReaderCrashError", "x: 1\ny: 2", "ReaderCrashError", "ReaderCrashError", "f", "after",
    ]  # fmt: skip
    archive = str(deadly / "z.zip")
    assert [x.source.removeprefix(archive) for x in found[:-1]] == [
        "/a.txt", "/b.pdf", "/c.csv", "/d.pdf", "/in/e.pdf", "/f.txt",
    ]  # fmt: skip


def test_deaths_among_many_small_files_change_nothing_of_the_others(deadly):
    paths = []
    for number in range(200):
        what = ("signal", "print", "exit")[number % 3]
        paths.append(deadly / f"{number:03}.{'pdf' if number % 17 == 5 else 'txt'}")
        paths[-1].write_text(f"%PDF {what}" if number % 17 == 5 else f"text {number}")
        if number % 40 == 7:
            members = {f"{n}.{'pdf' if n == 2 else 'txt'}": f"%PDF {what}" for n in range(4)}
            paths[-1] = deadly / f"{number:03}.zip"
            paths[-1].write_bytes(zipped(members))
    found = list(read_all(paths, processes=2))
    expected = []
    for path in paths:
        if path.suffix == ".zip":
            expected += [f"{path}/{n}" for n in ("0.txt", "1.txt", "2.pdf", "3.txt")]
        else:
            expected.append(str(path))
    assert [x.source for x in found] == expected
    for x in found:
        assert isinstance(x, Unread) == x.source.endswith(".pdf")
        assert not isinstance(x, Unread) or isinstance(x.error, ReaderCrashError)


def test_what_waits_for_its_turn_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_MAX_WAITING", 1000)
    paths = [tmp_path / f"{number}.csv" for number in range(4)]
    for path in paths:
        path.write_text("text,n\n" + "some words of a row,1\n" * 3000)
    seen = 0
    pool = reading._Pool(Limits(), Caps(), 3)
    for _ in pool.run(paths):
        jobs = {id(job): job for queue in pool._asked.values() for job in queue}
        seen = max(seen, sum(job.waiting for job in jobs.values()))
    pool.close()
    assert seen < 500_000  # a pipe full of each, not the files


def test_no_process_is_left_behind(deadly):
    (deadly / "a.csv").write_text("n,m\n" + "1,2\n" * 100_000)
    (deadly / "b.pdf").write_text("%PDF hang")
    mine = psutil.Process()
    before = set(mine.children())
    given = read_all([deadly / "a.csv", deadly / "b.pdf"], processes=2)
    assert next(given).row == 1
    assert len(set(mine.children()) - before) == 2
    given.close()  # the caller has seen enough
    assert set(mine.children()) == before


def test_a_reader_ends_itself_when_its_caller_is_gone(deadly):
    (deadly / "b.pdf").write_text("%PDF hang")
    program = (
        "import os, psutil, threading, time\n"
        f"import sys; sys.path.insert(0, {str(deadly / 'modules')!r})\n"
        "from freehold.documents import Caps, read\n"
        "def leave():\n"
        "    time.sleep(0.5)\n"
        "    print(psutil.Process().children()[0].pid, flush=True)\n"
        "    os._exit(9)\n"
        "threading.Thread(target=leave).start()\n"
        f"list(read({str(deadly / 'b.pdf')!r}, caps=Caps(seconds=2)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(timeout=30)


@pytest.mark.parametrize("program", ["/bin/false", "/no/such/python"])
def test_a_process_that_cannot_start_is_no_fault_of_the_file(program, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(CapacityError, match="process to read documents in"):
        list(read_all([tmp_path / "a.txt"]))


def test_limits_reach_the_process(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 100)
    with pytest.raises(DocumentTooLargeError, match="100 characters is more than 99"):
        list(read(tmp_path / "a.txt", Limits(max_characters=99)))


@pytest.mark.parametrize("record", [
    {"text": 1}, {"text": "a", "source": "a", "reader": "txt", "version": "1"},
    {"text": "\ud800", "source": "", "reader": "", "version": 1},
    {"error": "SystemExit", "message": "x", "source": ""},
    {"error": "EngineError", "message": "x", "source": ""},
    {"error": "DocumentError", "message": ["x"], "source": ""},
    {"text": "ab", "source": "", "reader": "", "version": 1, "columns": {}, "notes": [],
     "pages": [[1, 0, 3, None]]},
], ids=range(7))  # fmt: skip
def test_what_no_reader_says_is_not_believed(record):
    with pytest.raises(_reading_wire.BadFrameError):
        _reading_wire.from_record(record)


def test_documents_and_errors_cross_the_pipe_whole():
    page = documents.Page(1, 0, 2, "Größe")
    for found in (
        Document("北京", "a/b.csv", "csv", 3, 7, {"a": "é"}, ("n",), (page,), 4),
        Unread(ReaderCrashError("x", hint="y"), "s", 2),
        Unread(DocumentError("x"), "s"),
    ):
        frames = _reading_wire.Frames(Limits())
        data = _reading_wire.frame(_reading_wire.to_record(found))
        records = [
            record for at in range(len(data)) for record, _ in frames.feed(data[at : at + 1])
        ]
        (back,) = map(_reading_wire.from_record, records)
        if isinstance(found, Unread):
            assert (
                type(back.error),
                back.error.message,
                back.error.hint,
                back.source,
                back.row,
            ) == (type(found.error), found.error.message, found.error.hint, "s", found.row)
        else:
            assert back == found
