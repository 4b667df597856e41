# SPDX-License-Identifier: Apache-2.0
"""Headers of files that lie elsewhere: the same sizes as the whole files, and little fetched."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

import tiny_models
from freehold.builtin import model_path
from freehold.errors import MalformedFileError
from freehold.formats.checkpoint import open_checkpoint
from freehold.planner import remote_headers
from freehold.planner.remote_headers import RemotePart, open_remote
from freehold.planner.sizes import sizes_of


class Elsewhere:
    """Files that are only given out in parts, and what was asked of them."""

    def __init__(self, *paths: Path) -> None:
        self.paths = {str(path): path for path in paths}
        self.asked: list[tuple[str, int, int]] = []

    def parts(self, root: Path) -> list[RemotePart]:
        return [
            RemotePart(str(path.relative_to(root)), path.stat().st_size, name)
            for name, path in self.paths.items()
        ]

    def fetch(self, location: str, first: int, count: int) -> bytes:
        self.asked.append((location, first, count))
        with self.paths[location].open("rb") as file:
            file.seek(first)
            return file.read(count)


def judged(path: Path):
    with open_checkpoint(path) as checkpoint:
        return sizes_of(checkpoint)


@pytest.mark.parametrize("first_piece", [64, 1000, 50_000, 1 << 20])
def test_a_gguf_file_is_judged_by_its_header(first_piece, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_headers, "FIRST_PIECE", first_piece)
    source = Path(model_path("seedling"))
    there = Elsewhere(source)
    checkpoint, fetched = open_remote(
        there.parts(source.parent), source.name, tmp_path, there.fetch
    )
    with checkpoint:
        assert sizes_of(checkpoint) == judged(source)
        first = min(tensor.offset for tensor in checkpoint.tensors.values())
    assert fetched == sum(count for _, _, count in there.asked)
    # Never more than four times as much as was needed, whatever the first piece.
    assert fetched <= max(first_piece, 4 * first)
    assert (tmp_path / source.name).stat().st_size == source.stat().st_size
    places = [(first, first + count) for _, first, count in there.asked]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(places))


@pytest.mark.parametrize("shards", [False, True])
def test_a_directory_is_judged_by_its_headers(shards, tmp_path):
    source = tmp_path / "source"
    model = tiny_models.build(tiny_models.CASES["llama-gqa"])
    model.save_pretrained(source, max_shard_size="100KB" if shards else "1GB")
    there = Elsewhere(*sorted(p for p in source.iterdir() if p.is_file()))
    assert (len(list(source.glob("*.safetensors"))) > 1) is shards
    target = tmp_path / "target"
    target.mkdir()
    checkpoint, _ = open_remote(there.parts(source), "", target, there.fetch)
    with checkpoint:
        assert sizes_of(checkpoint) == judged(source)


def test_a_file_that_ends_early_is_refused(tmp_path):
    source = Path(model_path("seedling"))
    cut = tmp_path / "cut.gguf"
    with source.open("rb") as file:
        cut.write_bytes(file.read(20_000))
    there = Elsewhere(cut)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(MalformedFileError):
        open_remote(there.parts(tmp_path), "cut.gguf", folder, there.fetch)
    assert sum(count for _, _, count in there.asked) <= 20_000


def test_a_header_that_claims_to_be_huge_is_not_fetched(tmp_path):
    huge = tmp_path / "model.safetensors"
    with huge.open("wb") as file:
        file.write((1 << 40).to_bytes(8, "little"))
        file.truncate(1 << 41)
    there = Elsewhere(huge)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(MalformedFileError, match="header"):
        open_remote(there.parts(tmp_path), "model.safetensors", folder, there.fetch)
    assert sum(count for _, _, count in there.asked) <= 1 << 20
    shutil.rmtree(folder)
