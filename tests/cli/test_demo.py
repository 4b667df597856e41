# SPDX-License-Identifier: Apache-2.0
"""`freehold demo`: the samples are read, everything said is there, and nothing stops on one file.

How good the answers of the built-in model are is for its own evaluation to say; what is tested of
it here is that its answers end and have the form that was asked for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import process, refused

import tiny_chat
from freehold import builtin, documents
from freehold.cli import _demo_work
from freehold.cli.main import run
from freehold.documents import list_prices
from freehold.documents.asking import Answer, Usage
from freehold.documents.tasks.code import unfinished_function
from freehold.errors import AnswerError, ModelNotFoundError

SAMPLES = Path(__file__).parents[2] / "examples" / "documents"
SEEDLING = Path(builtin.__file__).parent / "seedling.gguf"
needs_seedling = pytest.mark.skipif(
    not SEEDLING.is_file(), reason="the built-in model is not in this checkout yet"
)


USAGE = Usage(prompt_tokens=100, cached_tokens=16, answer_tokens=10)


@pytest.fixture(scope="module")
def babbler(tmp_path_factory) -> str:
    """A model of random weights, which answers nothing that can be used."""
    return str(tiny_chat.write(tmp_path_factory.mktemp("models") / "babbler.gguf"))


def answered(value: object) -> Answer:
    return Answer(value, str(value), usage=USAGE)


def in_part(name: str, value: object) -> Answer:
    return answered({name: value})


def scripted(llm, works, report):
    """Good answers, and one bad one, without asking the model."""
    for number, work in enumerate(works):
        report(number, len(works), "asking")
        if work.beginning is not None:
            work.function = answered(work.beginning + "\n    return max(numbers)\n")
            continue
        kind = work.document.source.rpartition("/")[2].partition("-")[0]
        kind = kind if kind in _demo_work.FIELDS else "ticket"
        work.kind = answered(kind)
        work.label = answered("refund") if kind == "ticket" else None
        work.fields = answered({"customer": "A [bold]name[/bold]\x1b[2J", "total": None})
        work.summary = answered("One line about it.")
        if kind == "contract":
            error = AnswerError("the answer is not JSON")
            work.fields = Answer(None, "{broken", error, USAGE)
    return 2.0


# -- the samples ---------------------------------------------------------------------------------


def test_the_samples_are_a_mix_that_can_be_read():
    assert builtin.sample_documents().samefile(SAMPLES)
    found = _demo_work.gather(SAMPLES, 100)
    assert not found.failures
    assert {work.document.reader for work in found.works} == {"txt", "md", "eml", "csv"}
    assert sum(work.beginning is not None for work in found.works) == 1
    assert 10 <= len(found.works) <= 20
    for work in found.works:
        assert len(work.document.text) < 1000, work.document.name  # what seedling was taught on


def test_the_samples_are_no_part_of_the_corpus():
    """None of their lines, but those any mail or table has, is in the recipe's sources."""
    recipe = SAMPLES.parents[1] / "recipes" / "seedling"
    source = "\n".join(path.read_text("utf-8") for path in sorted(recipe.rglob("*.py")))
    assert len(source) > 10_000
    for work in _demo_work.gather(SAMPLES, 100).works:
        for line in work.document.text.splitlines():
            if len(re.findall(r"[^\W\d_]{2,}", line)) > 3:
                assert line.strip() not in source


# -- what is shown -------------------------------------------------------------------------------


def test_everything_is_said(babbler, monkeypatch, capsys):
    monkeypatch.setattr(_demo_work, "ask_all", scripted)
    assert run(["demo", "--model", babbler, "--backend", "reference"]) == 0
    captured = capsys.readouterr()
    out = captured.out
    assert captured.err == ""
    for work in _demo_work.gather(SAMPLES, 100).works:
        assert work.document.name in out
    flat = " ".join(out.replace("│", " ").split())
    assert "A [bold]name[/bold]\\x1b[2J" in flat  # shown as it is: neither markup nor control
    assert "the answer is not JSON" in flat
    assert "{broken" in flat
    assert "return max(numbers)" in flat
    assert "attachment not read: terms.pdf" in flat
    count = len(_demo_work.gather(SAMPLES, 100).works)
    asked = sum(1 if w.beginning else 3 for w in _demo_work.gather(SAMPLES, 100).works)
    asked += sum(w.document.source.endswith((".csv", "customer-mail.txt"))
                 for w in _demo_work.gather(SAMPLES, 100).works)  # fmt: skip
    assert f"{count} documents, {100 * asked:,} tokens read" in flat
    assert f"{110 * asked / 2:,.0f} tokens per second" in flat
    for price in list_prices.LIST_PRICES:
        assert price.model in flat
        assert f"${(100 * price.read + 10 * price.written) * asked / 1e6:.4f}" in flat
    assert list_prices.AS_OF in flat
    assert "demonstration model" not in flat  # another model was asked


def test_a_narrow_terminal_gets_all_of_it_too(babbler, monkeypatch, capsys):
    monkeypatch.setattr(_demo_work, "ask_all", scripted)
    monkeypatch.setattr("freehold.cli._demo_table._PIPE_WIDTH", 72)
    assert run(["demo", "--model", babbler, "--backend", "reference"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 72
    flat = " ".join(" ".join(lines).replace("│", " ").split())
    assert "order-boutique-hotel.eml" in flat
    assert "One line about it." in flat


def test_json_holds_everything(babbler, monkeypatch, capsys):
    monkeypatch.setattr(_demo_work, "ask_all", scripted)
    assert run(["demo", "--model", babbler, "--backend", "reference", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert captured.err == ""
    by_name = {Path(d["source"]).name: d for d in result["documents"]}
    contract = by_name["contract-service.md"]
    assert contract["kind"]["value"] == "contract"
    assert contract["fields"]["value"] is None
    assert contract["fields"]["error"] == "the answer is not JSON"
    assert contract["fields"]["text"] == "{broken"
    (document,) = documents.read(SAMPLES / "contract-service.md")
    assert contract["sha256"] == document.sha256
    assert [d["row"] for d in result["documents"] if d["reader"] == "csv"] == [1, 2, 3, 4]
    assert result["tokens"]["read"] == 10 * result["tokens"]["written"]
    cost = result["api_list_prices"]["models"][0]
    assert cost["cost"] * 1e6 == pytest.approx(
        result["tokens"]["read"] * cost["read"] + result["tokens"]["written"] * cost["written"]
    )


# -- with a real engine --------------------------------------------------------------------------


def test_a_model_that_babbles_fails_item_by_item(babbler, capsys):
    path = str(SAMPLES / "support-inbox.csv")
    assert run(["demo", path, "--model", babbler, "--limit", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["documents"]) == 2
    assert result["more_documents"]
    for document in result["documents"]:
        assert document["kind"]["value"] in _demo_work.FIELDS  # whatever it says, it is a label
        assert document["kind"]["answer_tokens"] == 0
        assert document["summary"]["value"] is None
        assert "did not end" in document["summary"]["error"]
        assert document["summary"]["answer_tokens"] > 0
        assert document["summary"]["prompt_tokens"] > 100
    assert result["tokens"]["written"] > 0
    assert result["tokens_per_second"] > 0


def test_answers_decide_what_is_asked_next(monkeypatch):
    asked = []

    def task(name, part, value):
        def ask(llm, texts, *rest):
            asked.append((name, len(texts), rest[:-1]))
            rest[-1](len(texts), len(texts))
            return [in_part(part, value(text)) for text in texts]

        return ask

    def classify(llm, texts, labels, progress):
        kinds = list(labels) == list(_demo_work.FIELDS)
        name = "kind" if kinds else "label"
        return task(name, "label", lambda text: text if kinds else "refund")(
            llm, texts, labels, progress
        )

    monkeypatch.setattr(documents, "classify", classify)
    monkeypatch.setattr(documents, "extract", task("extract", "values", lambda text: {"a": text}))
    monkeypatch.setattr(documents, "summarize", task("summarize", "summary", str.upper))
    monkeypatch.setattr(
        documents,
        "complete_functions",
        task("code", "files", lambda text: {"solution.py": text.title()}),
    )
    texts = ["ticket", "invoice", "ticket", "code"]
    works = [
        _demo_work.Work(documents.Document(text, "a.txt", "txt", 1)) for text in texts
    ]  # fmt: skip
    works[3].beginning = "def f(): ..."
    steps: list[tuple[int, int, str]] = []
    _demo_work.ask_all(None, works, lambda *step: steps.append(step))
    assert [(name, count) for name, count, _ in asked] == [
        ("kind", 3), ("label", 2), ("extract", 2), ("extract", 1), ("summarize", 3), ("code", 1),
    ]  # fmt: skip
    assert asked[2][2] == (_demo_work.FIELDS["ticket"],)
    assert asked[3][2] == (_demo_work.FIELDS["invoice"],)
    assert works[0].label.value == "refund"
    assert works[1].label is None
    assert works[2].summary.value == "TICKET"
    assert works[3].function.value == "Def F(): ..."
    assert works[3].kind is None
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)
    assert all(done <= total for done, total, _ in steps)


def test_bad_files_are_told_and_stop_nothing(babbler, tmp_path, capsys):
    (tmp_path / "good.txt").write_text("Please send the invoice again.")
    (tmp_path / "bad.txt").write_bytes(b"\0\0\0")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    assert run(["demo", str(tmp_path), "--model", babbler]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "good.txt" in out
    assert "bad.txt: not a text: character 0 is NUL" in out
    assert "there is no reader for files ending in .png" in out


def test_nothing_to_read_is_a_users_mistake(babbler, tmp_path):
    refused(process("demo", tmp_path, "--model", babbler))
    assert "missing" in refused(process("demo", tmp_path / "missing", "--model", babbler))
    (tmp_path / "x.png").write_bytes(b"x")
    assert "x.png" in refused(process("demo", tmp_path, "--model", babbler))
    refused(process("demo", "--model", "no-such.gguf"))
    refused(process("demo", "--limit", "0"))


# -- the name seedling ---------------------------------------------------------------------------


def test_a_name_means_the_same_in_every_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seedling").mkdir()
    code = run(["show", "seedling"])
    captured = capsys.readouterr()
    if SEEDLING.is_file():
        assert code == 0
        assert str(SEEDLING) in captured.out
    else:
        assert code == 2
        assert "recipes.seedling" in captured.err
    assert run(["show", "./seedling"]) == 2
    assert "no model in this directory" in capsys.readouterr().err


@pytest.mark.parametrize("command", [
    ("run", "{}", "hi"), ("chat", "{}"), ("show", "{}"), ("tokenize", "{}", "hi"), ("bench", "{}"),
    ("quantize", "{}", "out.gguf", "--type", "F16"), ("demo", "--model", "{}"),
], ids=lambda words: words[0])  # fmt: skip
def test_every_command_asks_for_names_at_the_same_door(command, monkeypatch, capsys):
    def closed(name):
        raise ModelNotFoundError(f"asked for {name}")

    monkeypatch.setattr(builtin, "model_path", closed)
    assert run([word.format("seedling") for word in command]) == 2
    assert "asked for seedling" in capsys.readouterr().err
    assert run([word.format("seedlin") for word in command]) == 2
    assert "seedling" in capsys.readouterr().err.splitlines()[1]  # the hint names what there is


@needs_seedling
def test_seedling_answers_in_form(capsys):
    assert run(["demo", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == str(SEEDLING)
    answers = [
        document[task]
        for document in result["documents"]
        for task in ("kind", "label", "fields", "summary", "function")
        if document[task] is not None
    ]
    failed = [answer["error"] for answer in answers if answer["error"]]
    assert len(answers) > 30
    assert len(failed) <= len(answers) // 10, failed


@needs_seedling
def test_seedling_says_that_it_is_small(capsys):
    assert run(["demo"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "seedling is a small demonstration model" in out
    assert "freehold run path/to/model.gguf" in out


def test_an_installation_finds_the_samples_it_was_given(tmp_path):
    """As in a wheel: the package alone, with the copies that the build puts beside it."""
    package = tmp_path / "freehold"
    for name in ("builtin/__init__.py", "errors.py", "__init__.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("")
    here = Path(builtin.__file__).parent
    shutil.copy(here / "__init__.py", package / "builtin")
    shutil.copy(here.parent / "errors.py", package)
    script = "from freehold import builtin; print(builtin.sample_documents())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def samples() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", "-c", script], env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    assert "DocumentError" in samples().stderr
    shutil.copytree(SAMPLES, package / "builtin" / "documents")
    assert samples().stdout.strip() == str(package / "builtin" / "documents")
    cmake = (SAMPLES.parents[1] / "CMakeLists.txt").read_text("utf-8")
    assert "examples/documents/ DESTINATION freehold/builtin/documents" in cmake


def test_the_sample_function_is_one_to_complete():
    texts = [path.read_text("utf-8") for path in sorted(SAMPLES.glob("*.md"))]
    (beginning,) = filter(None, map(unfinished_function, texts))
    assert beginning.endswith('"""')
