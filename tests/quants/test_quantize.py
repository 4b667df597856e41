# SPDX-License-Identifier: Apache-2.0
"""`quantize` end to end: real models from both formats, decoded back and read by `gguf`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from freehold import quantize as module
from freehold import quants
from freehold.errors import (
    CapacityError,
    InvalidParameterError,
    MalformedFileError,
    UnsupportedModelError,
)
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.gguf_writer import write_gguf
from freehold.formats.tensor_view import LazyTensor
from freehold.quantize import quantize

WEIGHTS = Path(__file__).parents[2] / ".." / "shared" / "data" / "weights"
needs_weights = pytest.mark.skipif(
    not WEIGHTS.is_dir(), reason="the shared conformance data (../shared/data) is absent"
)
STORIES, BABY = WEIGHTS / "stories260K", WEIGHTS / "babyllama105"

# Highest root-mean-square error relative to the values, for trained weights of these widths.
CEILINGS = {
    "F32": 0.0, "F16": 0.0003, "BF16": 0.002, "Q8_0": 0.007, "Q5_0": 0.052, "Q5_1": 0.05,
    "Q4_0": 0.105, "IQ4_NL": 0.09,
}  # fmt: skip


def values_of(path: Path) -> dict[str, np.ndarray]:
    with open_checkpoint(path) as checkpoint:
        return {name: tensor.to_f32() for name, tensor in checkpoint.tensors.items()}


def tensor(name: str, values: np.ndarray, qtype: str = "F32") -> LazyTensor:
    data = quants.get(qtype).encode(values.reshape(-1).astype(np.float32))
    return LazyTensor(name, values.shape, qtype, lambda: data)


def small_gguf(path: Path, *, qtype: str = "F32", big_endian: bool = False, **extra) -> Path:
    rng = np.random.default_rng(0)
    tensors = [
        tensor("token_embd.weight", rng.standard_normal((40, 256)), qtype),
        tensor("blk.0.attn_norm.weight", rng.standard_normal(256)),
        tensor("blk.0.attn_q.weight", rng.standard_normal((256, 256)), qtype),
        tensor("blk.0.ffn_down.weight", rng.standard_normal((256, 512)), qtype),
        tensor("output.weight", extra.pop("output", rng.standard_normal((40, 256))), qtype),
    ]
    metadata = {
        "general.architecture": "llama", "llama.block_count": 1, "llama.attention.head_count": 4,
        "tokenizer.ggml.tokens": ["a", "b"],
    }  # fmt: skip
    write_gguf(path, metadata | extra, tensors, big_endian=big_endian)
    return path


# -- against the files that came with the models ---------------------------------------------------


@needs_weights
@pytest.mark.parametrize(
    ("source", "mix", "shipped"),
    [
        (STORIES / "hf", "F32", STORIES / "stories260K.gguf"),
        (BABY / "hf", "F16", BABY / "babyllama105-f16.gguf"),
        (BABY / "hf", "Q8_0", BABY / "babyllama105-q8_0.gguf"),
        (BABY / "babyllama105-f16.gguf", "F16", BABY / "babyllama105-f16.gguf"),
        (STORIES / "stories260K.gguf", "F32", STORIES / "stories260K.gguf"),
    ],
)
def test_every_tensor_equals_the_shipped_file_byte_by_byte(source, mix, shipped, tmp_path):
    out = tmp_path / "out.gguf"
    report = quantize(source, out, mix)
    ours = {t.name: t for t in gguf.GGUFReader(out).tensors}
    theirs = {t.name: t for t in gguf.GGUFReader(shipped).tensors}
    theirs.pop("output.weight", None) if "output.weight" not in ours else None
    assert ours.keys() == theirs.keys() == report.tensors.keys()
    for name, tensor in ours.items():
        assert tensor.tensor_type == theirs[name].tensor_type, name
        assert list(tensor.shape) == list(theirs[name].shape), name
        assert np.array_equal(tensor.data, theirs[name].data), name


@needs_weights
def test_keys_from_hugging_face_equal_those_of_the_shipped_files(tmp_path):
    """All keys the independent converters wrote, but for what the HF config says otherwise."""
    for source, shipped, differing in (
        (BABY / "hf", BABY / "babyllama105-f16.gguf", set()),
        (
            STORIES / "hf", STORIES / "stories260K.gguf",
            # The old file overstates the context, has no name, and spells "none" as -1.
            {"llama.context_length", "general.name", "tokenizer.ggml.seperator_token_id",
             "tokenizer.ggml.padding_token_id"},
        ),
    ):  # fmt: skip
        out = tmp_path / "out.gguf"
        quantize(source, out, "F16", overwrite=True)
        ours, theirs = gguf.GGUFReader(out).fields, gguf.GGUFReader(shipped).fields
        for key, field in theirs.items():
            if key in differing or key.startswith("GGUF."):
                continue
            assert ours[key].contents() == field.contents(), key
            assert ours[key].types == field.types, key
        assert ours["general.file_type"].contents() == 1
        assert ours["general.quantization_version"].contents() == 2


@needs_weights
@pytest.mark.parametrize("mix", ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "BF16"])
@pytest.mark.parametrize("source", ["hf", "gguf"])
def test_decoded_back_each_tensor_is_close(source, mix, tmp_path):
    original = values_of(STORIES / "stories260K.gguf")
    path = STORIES / "hf" if source == "hf" else STORIES / "stories260K.gguf"
    out = tmp_path / "out.gguf"
    report = quantize(path, out, mix)
    for name, values in values_of(out).items():
        error = np.sqrt(((values - original[name]) ** 2).mean() / (original[name] ** 2).mean())
        assert error <= CEILINGS[report.tensors[name]], (name, report.tensors[name])
    assert report.bytes == out.stat().st_size < report.source_bytes
    assert sum(report.types.values()) == len(report.tensors)


# -- what must be carried over ---------------------------------------------------------------------


def test_metadata_of_a_gguf_source_is_kept_with_its_types(tmp_path):
    source = small_gguf(
        tmp_path / "in.gguf",
        **{
            "general.license": "mit", "x.u64": np.uint64(7), "x.i8": np.int8(-3),
            "x.list": np.array([1.5, 2.5], dtype=np.float32), "x.flag": True,
            "general.file_type": 0, "split.count": np.uint16(1),
        },
    )  # fmt: skip
    quantize(source, tmp_path / "out.gguf", "Q4_K_M")
    before, after = gguf.GGUFReader(source).fields, gguf.GGUFReader(tmp_path / "out.gguf").fields
    for key, field in before.items():
        if key.startswith(("GGUF.", "split.", "general.file_type")):
            continue
        assert after[key].types == field.types, key
        assert after[key].contents() == field.contents(), key
    assert after["general.file_type"].contents() == 15
    assert not any(key.startswith("split.") for key in after)


def test_big_endian_sources_give_the_same_file(tmp_path):
    little = small_gguf(tmp_path / "le.gguf", qtype="Q8_0")
    big = small_gguf(tmp_path / "be.gguf", qtype="Q8_0", big_endian=True)
    assert little.read_bytes() != big.read_bytes()
    quantize(little, tmp_path / "a.gguf", "Q4_K_M")
    quantize(big, tmp_path / "b.gguf", "Q4_K_M")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_split_sources_become_one_file(tmp_path):
    whole = small_gguf(tmp_path / "in.gguf")
    with open_checkpoint(whole) as checkpoint:
        parts = write_gguf(
            tmp_path / "part.gguf", checkpoint.metadata, checkpoint.tensors.values(),
            value_types=checkpoint.value_types, max_shard_bytes=200_000,
        )  # fmt: skip
    assert len(parts) > 1
    quantize(whole, tmp_path / "a.gguf", "Q6_K")
    quantize(parts[0], tmp_path / "b.gguf", "Q6_K")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_threads_and_chunks_do_not_change_the_bits(tmp_path, monkeypatch):
    source = small_gguf(tmp_path / "in.gguf")
    quantize(source, tmp_path / "a.gguf", "Q3_K_M")
    monkeypatch.setattr(module, "_CHUNK_VALUES", 1024)
    monkeypatch.setattr(module, "env_threads", lambda: 5)
    quantize(source, tmp_path / "b.gguf", "Q3_K_M")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_whole_number_tensors_pass_through(tmp_path):
    table = np.arange(12, dtype=np.int32)
    write_gguf(
        tmp_path / "in.gguf",
        {"general.architecture": "deepseek4"},
        [
            LazyTensor("blk.0.ids.weight", (3, 4), "I32", lambda: table.view(np.uint8)),
            tensor("token_embd.weight", np.ones((4, 32))),
        ],
    )
    report = quantize(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q8_0")
    assert report.tensors == {"blk.0.ids.weight": "I32", "token_embd.weight": "Q8_0"}
    assert np.array_equal(values_of(tmp_path / "out.gguf")["blk.0.ids.weight"].reshape(-1), table)


def test_progress_runs_from_nothing_to_everything(tmp_path):
    seen = []
    quantize(
        small_gguf(tmp_path / "in.gguf"), tmp_path / "out.gguf", "Q8_0",
        progress=lambda done, total, label="": seen.append((done, total, label)),
    )  # fmt: skip
    done = [entry[0] for entry in seen]
    assert done == sorted(done)
    assert done[0] == 0
    assert seen[-1][0] == seen[-1][1] == 2 * 40 * 256 + 256 + 256 * 256 + 256 * 512
    assert {"token_embd.weight", "output.weight"} <= {entry[2] for entry in seen}


# -- what must be refused --------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    return small_gguf(tmp_path / "in.gguf")


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_unknown_mixes_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(InvalidParameterError, match="Q5_X") as caught:
        quantize(tmp_path / "absent.gguf", tmp_path / "out.gguf", "Q5_X")
    assert "Q4_K_M" in str(caught.value)


def test_the_source_is_never_overwritten(source, tmp_path):
    before = source.read_bytes()
    link = tmp_path / "link.gguf"
    link.symlink_to(source)
    for target in (source, link):
        with pytest.raises(InvalidParameterError, match="to read as well as to write"):
            quantize(source, target, "Q8_0", overwrite=True)
    assert source.read_bytes() == before


def test_an_existing_file_needs_permission(source, tmp_path):
    out = tmp_path / "out.gguf"
    out.write_bytes(b"precious")
    with pytest.raises(InvalidParameterError, match="exists already"):
        quantize(source, out, "Q8_0")
    assert out.read_bytes() == b"precious"
    quantize(source, out, "Q8_0", overwrite=True)
    assert out.read_bytes()[:4] == b"GGUF"


def test_places_that_cannot_hold_a_file(source, tmp_path):
    with pytest.raises(InvalidParameterError, match="no such directory"):
        quantize(source, tmp_path / "nowhere" / "out.gguf", "Q8_0")
    with pytest.raises(InvalidParameterError, match="is a directory"):
        quantize(source, tmp_path, "Q8_0")


def test_a_full_disk_is_noticed_first(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CapacityError, match="free"):
        quantize(source, tmp_path / "out.gguf", "Q8_0")
    assert left(tmp_path) == {"in.gguf"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("mix", ["Q4_K_M", "F32", "F16"])
def test_damaged_weights_are_named_and_leave_nothing(mix, bad, tmp_path):
    output = np.zeros((40, 256))
    output[39, 255] = bad
    source = small_gguf(tmp_path / "in.gguf", output=output)
    with pytest.raises(MalformedFileError, match=r"'output.weight' holds NaN or infinity"):
        quantize(source, tmp_path / "out.gguf", mix)
    assert left(tmp_path) == {"in.gguf"}


def test_values_that_do_not_fit_name_their_tensor(tmp_path):
    source = small_gguf(tmp_path / "in.gguf", output=np.full((40, 256), 1e9))
    with pytest.raises(InvalidParameterError, match=r"'output.weight': values too large for F16"):
        quantize(source, tmp_path / "out.gguf", "F16")
    assert left(tmp_path) == {"in.gguf"}


def test_quantised_sources_need_permission(tmp_path):
    source = small_gguf(tmp_path / "in.gguf", qtype="Q4_0")
    with pytest.raises(InvalidParameterError, match="quantised already") as caught:
        quantize(source, tmp_path / "out.gguf", "Q8_0")
    assert "allow_requantize" in str(caught.value.hint)
    report = quantize(source, tmp_path / "out.gguf", "Q8_0", allow_requantize=True)
    assert report.types == {"Q8_0": 4, "F32": 1}


@pytest.mark.parametrize("qtype", ["F32", "F16", "BF16", "Q8_0"])
def test_fine_sources_need_none(qtype, tmp_path):
    source = small_gguf(tmp_path / "in.gguf", qtype=qtype)
    report = quantize(source, tmp_path / "out.gguf", "Q4_K_M")
    assert report.types == {"Q4_K": 2, "Q6_K": 2, "F32": 1}


def test_a_tensor_that_has_its_type_keeps_its_bytes(tmp_path):
    source = small_gguf(tmp_path / "in.gguf", qtype="Q6_K")
    quantize(source, tmp_path / "out.gguf", "Q6_K")
    with open_checkpoint(source) as old, open_checkpoint(tmp_path / "out.gguf") as new:
        for name, view in old.tensors.items():
            assert np.array_equal(view.bytes(), new.tensor(name).bytes())


def test_types_without_decoder_are_named(tmp_path):
    data = np.zeros(36 * 32, dtype=np.uint8)
    write_gguf(
        tmp_path / "in.gguf",
        {"general.architecture": "llama"},
        [LazyTensor("output.weight", (4, 256), "Q8_1", lambda: data)],
    )
    with pytest.raises(UnsupportedModelError, match="Q8_1"):
        quantize(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q8_0", allow_requantize=True)


@needs_weights
def test_unplaceable_tensors_of_a_directory_are_refused(tmp_path):
    """An architecture whose config claims to be llama but whose weights are not."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = json.loads((STORIES / "hf" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(WEIGHTS / "random" / "phi-tiny-random.safetensors", folder / "model.safetensors")
    with pytest.raises((UnsupportedModelError, MalformedFileError)):
        quantize(folder, tmp_path / "out.gguf", "Q8_0")
    assert left(tmp_path) == {"model"}
