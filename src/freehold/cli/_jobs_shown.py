# SPDX-License-Identifier: Apache-2.0
"""Jobs as a person or a program reads them. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freehold.cli import console
from freehold.cli._job_bar import duration
from freehold.documents.jobs import Journal, place
from freehold.documents.jobs.rows import Run
from freehold.errors import FreeholdError

_SHOWN = 10  # failures, one by one


def show_list(as_json: bool) -> None:
    """All jobs, those last touched first; one whose journal cannot be read is told on stderr."""
    found: list[dict[str, Any]] = []
    for name in place.names():
        path = place.journal_path(name)
        try:
            with Journal.existing(path) as journal:
                found.append(_overview(journal, path))
        except FreeholdError as error:
            console.note(f"{name}: {error.message}")
    if as_json:
        console.data_json(found)
        return
    if not found:
        console.note("no jobs yet; `freehold jobs run FILE --model M` begins one")
        return
    rows = [["JOB", "TASK", "STATE", "ITEMS", "LEFT", "FAILED", "LAST RUN"]]
    for each in found:
        numbers = [f"{each[key]:,}" for key in ("items", "pending", "errors")]
        rows.append([each["name"], each["task"], each["state"], *numbers, _ago(each["last_run"])])
    console.data(console.table(rows, right=(3, 4, 5)))


def show_one(name: str, as_json: bool) -> None:
    """One job: how far, with what, and why what failed did."""
    path = place.find(name)
    with Journal.existing(path) as journal:
        shown = _overview(journal, path)
        runs = journal.runs()
        shown["identity"] = journal.identity
        shown["fingerprint"] = journal.fingerprint
        shown["journal"] = str(path)
        shown["error_types"] = journal.error_types()
        shown["runs"] = [_run(run, shown["process"]) for run in runs]
        failures = [(row.id, row.error) for row in journal.failures(_SHOWN)]
    if as_json:
        console.data_json(shown)
        return
    record = runs[-1].record if runs else {}
    console.data(console.table(_facts(shown, record)))
    for failed, error in failures:
        assert error is not None
        hint = f" ({error.hint})" if error.hint else ""
        console.data(f"  {console.one_line(failed, 60)}: {error.type}: "
                     f"{console.one_line(error.message + hint, 160)}")  # fmt: skip
    if shown["errors"] > len(failures):
        console.data(f"  … and {shown['errors'] - len(failures):,} more")


def _overview(journal: Journal, path: Path) -> dict[str, Any]:
    counts = journal.counts()
    runs = journal.runs()
    worker = place.worker(path)
    state = _state(runs[-1], worker) if runs else "new"
    return {
        "name": journal.name, "task": journal.identity.get("task", "?"), "state": state,
        "process": worker, "items": counts.items, "ok": counts.ok, "errors": counts.errors,
        "pending": counts.pending, "created": journal.created,
        "last_run": runs[-1].started if runs else journal.created,
    }  # fmt: skip


def _state(run: Run, worker: int | None) -> str:
    killed = run.state == "running" and worker is None  # it could not say so
    return "interrupted" if killed else run.state


def _facts(shown: Mapping[str, Any], record: Mapping[str, Any]) -> list[list[str]]:
    model, engine, machine = (record.get(key) or {} for key in ("model", "engine", "machine"))
    identity = shown["identity"]
    state = shown["state"] + (f", process {shown['process']}" if shown["process"] else "")
    command = record.get("command")
    # Items are put in as they are read: of a run that stopped early there may be more.
    so_far = "" if shown["state"] in ("done", "waiting") else " read so far"
    facts = [
        ["job", shown["name"]], ["state", state],
        ["items", f"{shown['items']:,}{so_far}: {shown['ok']:,} answered, "
                  f"{shown['errors']:,} failed, {shown['pending']:,} left"],
        ["task", f"{identity.get('task')}, version {identity.get('task_version')}"],
        ["model", f"{', '.join(model.get('files', ())) or 'elsewhere'}, "
                  f"sha256 {str(identity.get('model'))[:16]}…"],
        ["template", f"sha256 {str(model.get('template_sha256'))[:16]}…"],
        ["engine", f"freehold {engine.get('freehold')}, {engine.get('backend') or 'server'} "
                   f"{engine.get('isa') or ''}".rstrip()],
        ["machine", f"{machine.get('processor')}, {machine.get('cores')} cores"],
        ["command", "freehold " + " ".join(command) if command else "from Python"],
        ["journal", shown["journal"]],
    ]  # fmt: skip
    for run in shown["runs"][-3:]:
        took = "" if run["ended"] is None else f" in {duration(run['ended'] - run['started'])}"
        computed = run["counts"].get("computed")
        done = "" if computed is None else f", {computed:,} computed"
        facts.append([f"run {run['id']}", f"{run['state']}{took}{done}, {_ago(run['started'])}"])
    if shown["errors"]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in shown["error_types"].items())
        facts.append(["failures", kinds])
    return [[name, console.one_line(text, 160)] for name, text in facts]


def _run(run: Run, worker: int | None) -> dict[str, Any]:
    return {
        "id": run.id, "state": _state(run, worker), "started": run.started, "ended": run.ended,
        "counts": dict(run.counts), "record": dict(run.record),
    }  # fmt: skip


def _ago(moment: float) -> str:
    return f"{duration(max(0.0, time.time() - moment))} ago"
