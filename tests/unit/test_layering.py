# SPDX-License-Identifier: Apache-2.0
"""The import rules of ARCHITECTURE: downwards only, and heavy packages only where they belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import freehold

ROOT = Path(freehold.__file__).parent

# Row of every module or folder directly under the package.
ROWS = {
    "errors": 0, "types": 0, "config": 0, "ops": 0, "batch": 0,
    "builtin": 1,
    "formats": 1, "quants": 1, "licences": 1,
    "catalogue": 2,
    "backends": 2,
    "models": 3,
    "engine": 4, "chat": 4, "planner": 4, "hub": 4,
    "llm": 5, "quantize": 5, "model_names": 5,
    "licensing": 5, "planning": 5, "pulling": 5,
    "convert": 5,
    "_llm_adapters": 5,
    "_llm_advice": 5,
    "_llm_chat": 5,
    "_llm_grammar": 5,
    "_llm_inputs": 5,
    "_llm_labels": 5,
    "_llm_label_rule": 5,
    "_llm_label_trie": 5,
    "_llm_parts": 5,
    "_llm_request": 5,
    "_llm_running": 5,
    "_llm_search": 5,
    "_llm_tokens": 5,
    "_pull_choice": 5,
    "async_llm": 5,
    "documents": 6, "tune": 6, "evaluate": 6,
    "cli": 7, "server": 7, "web": 7,
}  # fmt: skip

# Same row, or a lower one that is none of the importer's business all the same.
FORBIDDEN = {
    "quants": {"formats"},
    "models": {"backends"},
    "engine": {"backends", "chat", "planner", "hub"},
    "chat": {"backends", "engine", "planner", "hub"},
}
SAME_ROW_ALLOWED = {
    ("formats", "quants"),
    ("async_llm", "llm"),
    ("async_llm", "_llm_inputs"),
    ("async_llm", "_llm_labels"),
    ("async_llm", "_llm_request"),
    ("_llm_label_trie", "_llm_inputs"),
    ("_llm_label_trie", "_llm_label_rule"),
    ("_llm_label_trie", "_llm_labels"),
    ("_llm_label_trie", "llm"),
    ("_llm_labels", "_llm_inputs"),
    ("_llm_labels", "_llm_tokens"),
    ("_llm_tokens", "_llm_inputs"),
    ("_llm_parts", "_llm_adapters"),
    ("_llm_parts", "_llm_inputs"),
    ("_llm_parts", "_llm_tokens"),
    ("_llm_parts", "licensing"),
    ("_llm_parts", "model_names"),
    ("_llm_chat", "_llm_grammar"),
    ("_llm_chat", "_llm_inputs"),
    ("_llm_chat", "_llm_parts"),
    ("_llm_chat", "_llm_request"),
    ("_llm_running", "_llm_adapters"),
    ("_llm_running", "_llm_chat"),
    ("_llm_running", "_llm_inputs"),
    ("_llm_running", "_llm_parts"),
    ("_llm_running", "_llm_request"),
    ("cli", "server"),
    ("llm", "_llm_adapters"),
    ("llm", "_llm_advice"),
    ("llm", "_llm_chat"),
    ("llm", "_llm_inputs"),
    ("llm", "_llm_labels"),
    ("llm", "_llm_parts"),
    ("llm", "_llm_request"),
    ("llm", "_llm_running"),
    ("model_names", "licensing"),
    ("planner", "engine"),
    ("planning", "model_names"),
    ("_pull_choice", "planning"),
    ("pulling", "_pull_choice"),
    ("pulling", "licensing"),
    ("quantize", "convert"),
    ("quantize", "model_names"),
}

# Packages that only the named places may import.
CONFINED = {
    "torch": ("backends/torch_ops", "backends/cuda", "backends/triton", "tune/"),
    "ray": ("documents/executors/ray",),
    "transformers": ("tune/",),
    "gguf": (),
    "safetensors": ("tune/",),
    "llama_cpp": (),
}
ALL_MODULES = sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Every imported module with its line, imports inside functions and TYPE_CHECKING included."""
    package = ["freehold", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                prefix = package[: len(package) - node.level + 1]
                base = ".".join([*prefix, base] if base else prefix)
            yield base, node.lineno
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def own_imports(path: Path) -> Iterator[tuple[str, int]]:
    """Rooms of this package that a file imports."""
    for name, line in imports_of(path):
        parts = name.split(".")
        if parts[0] == "freehold" and len(parts) > 1:
            yield parts[1], line


def test_every_room_has_a_row():
    rooms = {room_of(path) for path in ALL_MODULES} - {"__init__"}
    assert rooms <= set(ROWS), f"give these a row: {rooms - set(ROWS)}"


def test_imports_point_downwards():
    wrong = []
    for path in ALL_MODULES:
        room = room_of(path)
        if room == "__init__":
            continue
        for target, line in own_imports(path):
            if target == room or target not in ROWS:
                continue  # inside a room, or a name of the package itself
            sideways = ROWS[target] == ROWS[room] and (room, target) not in SAME_ROW_ALLOWED
            row_zero = ROWS[room] == 0 == ROWS[target]
            if ROWS[target] > ROWS[room] or (sideways and not row_zero):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {target}")
            elif target in FORBIDDEN.get(room, ()):
                wrong.append(f"{path.relative_to(ROOT)}:{line} must not know {target}")
    assert not wrong, "\n".join(wrong)


def test_row_zero_imports_in_its_own_order():
    order = ["errors", "types", "batch", "ops", "config"]
    for name in order:
        for target, line in own_imports(ROOT / f"{name}.py"):
            assert order.index(target) < order.index(name), f"{name}.py:{line} imports {target}"


def test_heavy_packages_stay_where_they_belong():
    wrong = []
    for path in ALL_MODULES:
        where = path.relative_to(ROOT).as_posix()
        for name, line in imports_of(path):
            allowed = CONFINED.get(name.split(".")[0])
            if allowed is not None and not where.startswith(allowed or ("\0",)):
                wrong.append(f"{where}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_only_the_cpu_backend_knows_the_native_module():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in ALL_MODULES
        for name, line in imports_of(path)
        if name.startswith("freehold._native")
        and not path.relative_to(ROOT).as_posix().startswith(("backends/cpu", "backends/_cpu"))
    ]
    assert not wrong, "\n".join(wrong)


def test_only_config_reads_the_environment():
    names = {"environ", "getenv", "environb", "getenvb", "putenv"}
    wrong = []
    for path in ALL_MODULES:
        if path == ROOT / "config.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            attribute = isinstance(node, ast.Attribute) and node.attr in names
            imported = (
                isinstance(node, ast.ImportFrom)
                and node.module == "os"
                and any(alias.name in names for alias in node.names)
            )
            if attribute or imported:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("source", ["import torch", "from torch import nn"])
def test_the_scanner_sees_imports_anywhere(source, tmp_path, monkeypatch):
    monkeypatch.setattr("test_layering.ROOT", tmp_path)
    path = tmp_path / "models" / "x.py"
    path.parent.mkdir()
    path.write_text(f"def f():\n    {source}\n    from ..engine import engine\n")
    assert "torch" in {name.split(".")[0] for name, _ in imports_of(path)}
    assert ("engine", 3) in set(own_imports(path))


def test_every_module_says_its_licence_and_its_purpose():
    wrong = []
    for path in ALL_MODULES:
        text = path.read_text("utf-8")
        if not text.startswith("# SPDX-License-Identifier: Apache-2.0\n"):
            wrong.append(f"{path.relative_to(ROOT)}: no SPDX line")
        if path.name != "__init__.py" and ast.get_docstring(ast.parse(text)) is None:
            wrong.append(f"{path.relative_to(ROOT)}: no docstring")
    assert not wrong, "\n".join(wrong)
