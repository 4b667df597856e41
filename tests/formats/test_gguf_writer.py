# SPDX-License-Identifier: Apache-2.0
"""The GGUF writer, judged by our reader and by the reference package's."""

from __future__ import annotations

import errno
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.errors import CapacityError, InvalidParameterError, UnsupportedModelError
from freehold.formats import gguf_writer
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.gguf_types import VALUE_CODES, ValueType
from freehold.formats.gguf_writer import write_gguf
from freehold.formats.tensor_view import LazyTensor
from freehold.quants import get, names

RNG_SEED = 5


def f32(name: str, *shape: int) -> LazyTensor:
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32)
    return LazyTensor(name, shape, "F32", lambda: values.view(np.uint8))


def random_tensor(qtype: str, rows: int = 2, blocks: int = 3) -> LazyTensor:
    quant = get(qtype)
    rng = np.random.default_rng(RNG_SEED)
    values = rng.standard_normal(rows * blocks * quant.block_size).astype(np.float32)
    if quant.can_encode:
        data = quant.encode(values)
    else:  # any bytes make a block of these
        data = rng.integers(0, 256, rows * blocks * quant.type_size, dtype=np.uint8)
    return LazyTensor(qtype.lower(), (rows, blocks * quant.block_size), qtype, lambda: data)


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


# -- round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize("big_endian", [False, True])
def test_every_quant_type_comes_back(tmp_path, big_endian):
    tensors = [random_tensor(name) for name in names()]
    (path,) = write_gguf(tmp_path / "m.gguf", {}, tensors, big_endian=big_endian)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == [tensor.name for tensor in tensors]
        for tensor in tensors:
            view = checkpoint.tensors[tensor.name]
            assert (view.shape, view.qtype) == (tensor.shape, tensor.qtype)
            assert view.big_endian == big_endian
            assert np.array_equal(view.bytes(), tensor.bytes())
            expected = get(tensor.qtype).decode(tensor.bytes()).reshape(tensor.shape)
            assert np.array_equal(view.to_f32(), expected, equal_nan=True)


def test_big_endian_stores_numbers_the_other_way_round(tmp_path):
    integers = LazyTensor("i", (2,), "I16", lambda: np.array([1, 0, 2, 0], np.uint8))
    tensors = [f32("w", 4), integers]
    little, big = (
        write_gguf(tmp_path / f"{e}.gguf", {}, tensors, big_endian=e)[0] for e in (False, True)
    )
    with open_checkpoint(little) as a, open_checkpoint(big) as b:
        start = b.tensors["w"].offset
        stored = np.frombuffer(big.read_bytes(), ">f4", 4, start)
        assert stored.tolist() == [0, 1, 2, 3]
        for name in a.tensors:
            assert np.array_equal(a.tensors[name].bytes(), b.tensors[name].bytes())
        assert b.tensors["i"].to_f32().tolist() == [1, 2]


@pytest.mark.parametrize("big_endian", [False, True])
def test_the_reference_reader_reads_it(tmp_path, big_endian):
    gguf = pytest.importorskip("gguf")
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": 4096,
        "n.negative": -1,
        "n.large": 2**40,
        "n.float": 0.5,
        "n.bool": False,
        "a.ints": [1, -1],
        "a.floats": np.linspace(0, 1, 5, dtype=np.float32),
        "tokens": ["<s>", "▁é", ""],
    }
    tensors = [f32("w", 3, 5), f32("v", 7), random_tensor("Q4_K"), random_tensor("Q8_0")]
    (path,) = write_gguf(tmp_path / "m.gguf", metadata, tensors, big_endian=big_endian)
    reader = gguf.GGUFReader(path)
    assert (reader.byte_order == "S") == big_endian
    for key, value in metadata.items():
        expected = value.tolist() if isinstance(value, np.ndarray) else value
        assert reader.fields[key].contents() == expected
    assert [tensor.name for tensor in reader.tensors] == ["w", "v", "q4_k", "q8_0"]
    for tensor, ours in zip(reader.tensors, tensors, strict=True):
        assert tuple(reversed(tensor.shape.tolist())) == ours.shape
        assert tensor.data_offset % 32 == 0
        if not big_endian or tensor.tensor_type.name == "F32":
            data = tensor.data.astype(tensor.data.dtype.newbyteorder("<"))
            assert np.array_equal(data.reshape(-1).view(np.uint8), ours.bytes())


def test_our_reader_reads_the_reference_writer(tmp_path):
    gguf = pytest.importorskip("gguf")
    for endian in (gguf.GGUFEndian.LITTLE, gguf.GGUFEndian.BIG):
        path = tmp_path / f"{endian.name}.gguf"
        writer = gguf.GGUFWriter(path, "qwen2", endianess=endian)
        writer.add_context_length(77)
        writer.add_token_list(["a", "b▁"])
        writer.add_token_scores([0.5, -1.0])
        writer.add_custom_alignment(64)
        weights = np.arange(12, dtype=np.float32).reshape(3, 4)
        writer.add_tensor("w", weights)
        writer.add_tensor("h", weights.astype(np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.architecture == "qwen2"
            assert checkpoint.get_int("qwen2.context_length") == 77
            assert checkpoint.get_strings("tokenizer.ggml.tokens") == ["a", "b▁"]
            assert checkpoint.get_floats("tokenizer.ggml.scores") == [0.5, -1.0]
            assert np.array_equal(checkpoint.tensors["w"].to_f32(), weights)
            assert np.array_equal(checkpoint.tensors["h"].to_f32(), weights)


def test_copying_keeps_stored_types(tmp_path):
    types = {f"k.{kind.name}": kind for kind in VALUE_CODES if kind is not ValueType.BOOL}
    metadata = dict.fromkeys(types, 1) | {"general.alignment": 64, "a": np.array([1], np.uint16)}
    tensors = [f32("w", 3), f32("v", 40)]
    (first,) = write_gguf(tmp_path / "a.gguf", metadata, tensors, value_types=types)
    with open_checkpoint(first) as one:
        assert "general.alignment" not in one.metadata  # it describes a file, not the model
        (second,) = write_gguf(
            tmp_path / "b.gguf", one.metadata, one.tensors.values(), value_types=one.value_types
        )
        assert {key: one.value_types[key] for key in types} == types
    assert first.read_bytes() == second.read_bytes()


def test_a_file_can_be_rewritten_while_it_is_read(tmp_path):
    (path,) = write_gguf(tmp_path / "m.gguf", {"a": 1}, [f32("w", 64)])
    with open_checkpoint(path) as checkpoint:
        write_gguf(path, {"a": 2}, checkpoint.tensors.values())
        assert checkpoint.metadata["a"] == 1
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata["a"] == 2
        assert checkpoint.tensors["w"].to_f32().tolist() == list(range(64))


scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(width=32),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
arrays = st.one_of(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=5),
    st.sampled_from(list(VALUE_CODES.values())).flatmap(
        lambda code: st.binary(max_size=40).map(
            lambda raw: np.frombuffer(raw[: len(raw) // 8 * 8], dtype=f"<{code}")
        )
    ),
    st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=3), max_size=3),
)
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
own = {
    "general.alignment",
    "general.architecture",
    "split.no",
    "split.count",
    "split.tensors.count",
}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(keys.filter(lambda key: key not in own), scalars | arrays, max_size=8),
    st.lists(st.lists(st.integers(1, 5), max_size=4).map(tuple), max_size=5),
    st.sampled_from([8, 32, 256]),
    st.booleans(),
)
def test_anything_written_reads_back(tmp_path, metadata, shapes, alignment, big_endian):
    tensors = [f32(f"t{i}", *shape) for i, shape in enumerate(shapes)]
    (path,) = write_gguf(
        tmp_path / "m.gguf", metadata, tensors, alignment=alignment, big_endian=big_endian
    )
    with open_checkpoint(path) as checkpoint:
        stored = dict(checkpoint.metadata)
        assert stored.pop("general.alignment", 32) == alignment
        assert stored.keys() == metadata.keys()
        for key, value in metadata.items():
            read = stored[key]
            if isinstance(value, list) and value and isinstance(value[0], list):
                assert [item.tolist() for item in read] == value
            else:
                assert same(read, value), key
        for tensor in tensors:
            view = checkpoint.tensors[tensor.name]
            assert view.shape == tensor.shape
            assert view.offset % alignment == 0
            assert np.array_equal(view.bytes(), tensor.bytes())


# -- splits, memory, failure ------------------------------------------------------------------


@pytest.mark.parametrize("big_endian", [False, True])
def test_split_set(tmp_path, big_endian):
    tensors = [f32(f"t{i}", 10) for i in range(5)]
    metadata = {"general.architecture": "llama", "tokens": ["a"] * 100}
    paths = write_gguf(
        tmp_path / "m.gguf", metadata, tensors, max_shard_bytes=80, alignment=64,
        big_endian=big_endian,
    )  # fmt: skip
    assert [path.name for path in paths] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert sorted(tmp_path.iterdir()) == paths
    for path in paths:
        with open_checkpoint(path) as checkpoint:
            assert list(checkpoint.tensors) == [tensor.name for tensor in tensors]
            assert checkpoint.metadata["tokens"] == ["a"] * 100
            assert checkpoint.get_int("split.tensors.count") == 5
            assert [view.path for view in checkpoint.tensors.values()] == [
                paths[0], paths[0], paths[1], paths[1], paths[2],
            ]  # fmt: skip
            whole = write_gguf(tmp_path / "whole.gguf", checkpoint.metadata, tensors)
    with open_checkpoint(whole[0]) as checkpoint:
        assert "split.count" not in checkpoint.metadata


def test_one_tensor_in_memory_at_a_time(tmp_path):
    size = 1 << 20
    tensors = [
        LazyTensor(f"t{i}", (size // 4,), "F32", lambda: np.zeros(size, np.uint8)) for i in range(8)
    ]
    tracemalloc.start()
    write_gguf(tmp_path / "m.gguf", {}, tensors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * size


def test_nothing_remains_of_a_failure(tmp_path):
    def fail() -> np.ndarray:
        raise RuntimeError("stopped")

    old = tmp_path / "m.gguf"
    old.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stopped"):
        write_gguf(old, {}, [f32("a", 4), LazyTensor("b", (4,), "F32", fail)])
    assert old.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [old]


def test_full_disk_and_unwritable_place(tmp_path, monkeypatch):
    with pytest.raises(InvalidParameterError, match="cannot be written"):
        write_gguf(tmp_path / "absent" / "m.gguf", {}, [])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CapacityError, match="disk is full"):
        write_gguf(tmp_path / "m.gguf", {}, [f32("a", 4)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metadata", "tensors", "message"),
    [
        ({"": 1}, [], "metadata key"),
        ({"a\n": 1}, [], "metadata key"),
        ({"k": None}, [], "cannot store a NoneType"),
        ({"k": 2**64}, [], "k: .* does not fit UINT64"),
        ({"k": -(2**63) - 1}, [], "k: .* does not fit INT64"),
        ({"k": 1e300}, [], "k: .* does not fit FLOAT32"),
        ({"k": ["a", 1]}, [], "k: .* one type"),
        ({"k": np.zeros((2, 2))}, [], "k: .*no array"),
        ({"k": np.zeros(2, np.float16)}, [], "k: .*no array"),
        ({"k": np.zeros(2, np.complex64)}, [], "k: .*no array"),
        ({"k": np.float16(1)}, [], "cannot store a float16"),
        ({"k": np.complex64(1)}, [], "cannot store a complex64"),
        ({"k": b"x"}, [], "cannot store a bytes"),
        ({"k": "\ud800"}, [], "UTF-8"),
        ({}, [f32("a" * 65, 4)], "64 bytes"),
        ({}, [f32("", 4)], "printable"),
        ({}, [f32("a", 4), f32("a", 4)], "twice"),
        ({}, [f32("a", 1, 1, 1, 1, 1)], "cannot have shape"),
        ({}, [f32("a", 0)], "cannot have shape"),
        ({}, [LazyTensor("a", (31,), "Q8_0", lambda: np.zeros(34, np.uint8))], "cannot have shape"),
        ({}, [LazyTensor("a", (4,), "F8_E4M3", lambda: np.zeros(4, np.uint8))], "no type"),
        ({}, [LazyTensor("a", (4,), "F32", lambda: np.zeros(15, np.uint8))], "needs 16 bytes"),
        ({}, [LazyTensor("a", (4,), "F32", lambda: np.zeros(16, np.int8))], "needs 16 bytes"),
    ],
)
def test_what_gguf_cannot_express_is_refused(tmp_path: Path, metadata, tensors, message):
    with pytest.raises(InvalidParameterError, match=message):
        write_gguf(tmp_path / "m.gguf", metadata, tensors)
    assert not list(tmp_path.iterdir())


def test_types_that_cannot_be_swapped_are_refused_big_endian_only(tmp_path):
    tensor = LazyTensor("x", (32,), "Q8_1", lambda: np.arange(36, dtype=np.uint8))
    (path,) = write_gguf(tmp_path / "m.gguf", {}, [tensor])
    with open_checkpoint(path) as checkpoint:
        assert np.array_equal(checkpoint.tensors["x"].bytes(), tensor.bytes())
    with pytest.raises(UnsupportedModelError, match="Q8_1"):
        write_gguf(tmp_path / "m.gguf", {}, [tensor], big_endian=True)


@pytest.mark.parametrize("value", [1, 0, 2, "x", 1.0])
def test_a_declared_bool_takes_only_bools(tmp_path, value):
    with pytest.raises(InvalidParameterError, match="does not fit BOOL"):
        write_gguf(tmp_path / "m.gguf", {"k": value}, [], value_types={"k": ValueType.BOOL})


@pytest.mark.parametrize(
    ("value", "kind"),
    [(1, ValueType.STRING), ("x", ValueType.ARRAY), (7, ValueType.ARRAY), ("1", ValueType.UINT8)],
)
def test_a_declared_type_must_fit_the_value(tmp_path, value, kind):
    with pytest.raises(InvalidParameterError, match=r"^k\b"):
        write_gguf(tmp_path / "m.gguf", {"k": value}, [], value_types={"k": kind})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, ValueType.UINT32),
        (2**32, ValueType.UINT64),
        (-1, ValueType.INT32),
        (-(2**31) - 1, ValueType.INT64),
        (0.5, ValueType.FLOAT32),
        (np.uint8(3), ValueType.UINT8),
        (np.float64(0.1), ValueType.FLOAT64),
        (np.bool_(True), ValueType.BOOL),
        ("x", ValueType.STRING),
    ],
)
def test_usual_type_of_a_value(tmp_path, value, kind):
    (path,) = write_gguf(tmp_path / "m.gguf", {"k": value}, [])
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.value_types["k"] == kind
        assert checkpoint.metadata["k"] == value


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, -(2**31)], np.int32), ([2**31], np.int64), ([-(2**63)], np.int64), ([2**63], np.uint64),
     ([0.5], np.float32), ([True], np.bool_)],
)  # fmt: skip
def test_usual_type_of_a_list(tmp_path, values, dtype):
    (path,) = write_gguf(tmp_path / "m.gguf", {"k": values, "none": []}, [])
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata["k"].dtype == dtype
        assert checkpoint.metadata["k"].tolist() == values
        assert checkpoint.get_strings("none") == []


def test_number_of_parts_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_writer, "MAX_SPLITS", 2)
    tensors = [f32(name, 4) for name in "abc"]
    with pytest.raises(InvalidParameterError, match="3 files would be needed, at most 2"):
        write_gguf(tmp_path / "m.gguf", {}, tensors, max_shard_bytes=16)


def test_bad_alignment(tmp_path):
    for alignment in (0, 4, 24, -32):
        with pytest.raises(InvalidParameterError, match="alignment"):
            write_gguf(tmp_path / "m.gguf", {}, [], alignment=alignment)
