# SPDX-License-Identifier: Apache-2.0
"""The GGUF reader against files written byte by byte."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest
from gguf_bytes import array, gguf, info, kv, string

from freehold.errors import (
    EngineError,
    MalformedFileError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from freehold.formats import gguf_reader, gguf_values
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.gguf_types import TENSOR_TYPES, TENSOR_TYPES_BY_NAME
from freehold.quants import get, names

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
DATA_32 = bytes(range(32))


@pytest.fixture
def write(tmp_path):
    def save(data: bytes, name: str = "m.gguf"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return save


# -- what is right ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [2, 3])
def test_values_of_every_type(write, order, version):
    def pack(code: str, *values: object) -> bytes:
        return struct.pack(f"{order}{len(values)}{code}", *values)

    scalars = [
        (U8, "B", 200), (I8, "b", -3), (U16, "H", 60000), (I16, "h", -300), (U32, "I", 2**32 - 1),
        (I32, "i", -(2**31)), (F32, "f", 0.25), (U64, "Q", 2**64 - 1), (I64, "q", -(2**63)),
        (F64, "d", 1e300),
    ]  # fmt: skip
    kvs = [kv(f"s.{t}", t, pack(c, v), order) for t, c, v in scalars]
    kvs += [kv(f"a.{t}", ARRAY, array(t, 2, pack(c, v, v), order), order) for t, c, v in scalars]
    kvs += [
        kv("s.bool", BOOL, b"\1", order),
        kv("a.bool", ARRAY, array(BOOL, 2, b"\0\1", order), order),
        kv("s.text", STRING, string("é\n▁", order), order),
        kv("a.text", ARRAY, array(STRING, 2, string("a", order) + string("", order), order), order),
        kv("a.none", ARRAY, array(U32, 0, b"", order), order),
        kv("a.a", ARRAY, array(ARRAY, 1, array(U8, 2, b"\3\4", order), order), order),
    ]
    with open_checkpoint(write(gguf(kvs, order=order, version=version))) as checkpoint:
        for type_id, _, value in scalars:
            assert checkpoint.metadata[f"s.{type_id}"] == value
            assert checkpoint.metadata[f"a.{type_id}"].tolist() == [value, value]
            assert checkpoint.value_types[f"s.{type_id}"] == type_id
        assert checkpoint.metadata["s.bool"] is True
        assert checkpoint.metadata["a.bool"].tolist() == [False, True]
        assert checkpoint.metadata["s.text"] == "é\n▁"
        assert checkpoint.metadata["a.text"] == ["a", ""]
        assert checkpoint.metadata["a.none"].dtype == np.uint32
        assert checkpoint.metadata["a.none"].size == 0
        assert checkpoint.metadata["a.a"][0].tolist() == [3, 4]


def test_tensor_shape_offset_and_bytes(write):
    infos = [info("a", (4, 2), 0, 0), info("b", (), 0, 32), info("c", (5,), 24, 64)]
    data = np.arange(8, dtype="<f4").tobytes() + struct.pack("<f", 7.5) + bytes(28)
    path = write(gguf((), infos, data + b"\xff\1\2\3\4"))
    with open_checkpoint(path) as checkpoint:
        a, b, c = checkpoint.tensors.values()
        assert (a.shape, a.qtype, a.nbytes) == ((2, 4), "F32", 32)
        assert a.to_f32().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert (b.shape, float(b.to_f32())) == ((), 7.5)
        assert c.to_f32().tolist() == [-1, 1, 2, 3, 4]
        assert path.read_bytes()[b.offset : b.offset + 4] == b.bytes().tobytes()
        assert checkpoint.nbytes == 32 + 4 + 5


def test_order_in_the_header_need_not_be_order_in_the_data(write):
    infos = [info("late", (8,), 0, 32), info("early", (8,), 0, 0)]
    with open_checkpoint(write(gguf((), infos, bytes(32) + DATA_32))) as checkpoint:
        assert list(checkpoint.tensors) == ["late", "early"]
        assert checkpoint.tensors["late"].bytes().tobytes() == DATA_32


def test_alignment_key_moves_the_data(write):
    kvs = [kv("general.alignment", U32, struct.pack("<I", 256))]
    infos = [info("a", (8,), 0, 256)]
    path = write(gguf(kvs, infos, bytes(256) + DATA_32, alignment=256))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors["a"].bytes().tobytes() == DATA_32


def test_arrays_outlive_the_checkpoint(write):
    checkpoint = open_checkpoint(write(gguf((), [info("a", (8,))], DATA_32)))
    raw = checkpoint.tensors["a"].bytes()
    checkpoint.close()
    checkpoint.close()
    assert raw.tobytes() == DATA_32
    assert not raw.flags.writeable
    with pytest.raises(EngineError, match="closed"):
        checkpoint.tensors["a"].bytes()


@pytest.mark.parametrize("qtype", sorted(set(TENSOR_TYPES_BY_NAME) - set(names())))
def test_a_type_freehold_cannot_run_is_listed_and_refused_by_name(write, qtype):
    kind = TENSOR_TYPES_BY_NAME[qtype]
    path = write(gguf((), [info("w", (kind.block_size,), kind.ggml_id)], bytes(kind.type_size)))
    with open_checkpoint(path) as checkpoint:
        view = checkpoint.tensors["w"]
        assert (view.qtype, view.nbytes) == (qtype, kind.type_size)
        if qtype in ("I8", "I16", "I32", "I64", "F64"):
            assert view.to_f32().tolist() == [0.0]
        else:
            with pytest.raises(UnsupportedModelError, match=qtype):
                view.to_f32()


def test_type_table_agrees_with_the_quants():
    for name in names():
        kind = TENSOR_TYPES_BY_NAME[name]
        quant = get(name)
        assert (kind.ggml_id, kind.block_size, kind.type_size) == (
            quant.ggml_id, quant.block_size, quant.type_size,
        )  # fmt: skip


def test_type_table_agrees_with_the_reference_package():
    reference = pytest.importorskip("gguf")
    for kind, sizes in reference.GGML_QUANT_SIZES.items():
        if kind.name == "Q8_1":
            continue  # its table counts two floats where the format has two halves
        ours = TENSOR_TYPES[int(kind)]
        assert (ours.name, ours.block_size, ours.type_size) == (kind.name, *sizes)


def test_strings_are_decoded_on_first_use_only(write):
    items = string("ok") + string(b"\xff")
    kvs = [kv("tokens", ARRAY, array(STRING, 2, items))]
    with open_checkpoint(write(gguf(kvs))) as checkpoint:
        tokens = checkpoint.metadata["tokens"]
        assert len(tokens) == 2
        with pytest.raises(MalformedFileError, match=r"tokens.*string 1 is not UTF-8"):
            tokens[0]


def test_a_large_vocabulary_opens_fast(write):
    count = 400_000
    kvs = [kv("tokens", ARRAY, array(STRING, count, string("abcd") * count))]
    path = write(gguf(kvs))
    times = []
    for _ in range(3):
        began = time.process_time()
        open_checkpoint(path).close()
        times.append(time.process_time() - began)
    assert min(times) < 0.5  # 0.07 s where this was written


# -- what is wrong ----------------------------------------------------------------------------

ONE = [info("a", (8,))]
HEADER_FAULTS = {
    "other magic": (b"GGUX" + gguf()[4:], "not a GGUF file"),
    "no version": (b"GGUF\3\0", "version"),
    "no counts": (b"GGUF\3\0\0\0", "tensor count"),
    "key count": (gguf(counts=(0, 2**64 - 1)), "metadata count"),
    "key count beyond the file": (gguf(counts=(0, 60_000)), "metadata count"),
    "tensor count beyond the file": (gguf(counts=(200_000, 0)), "tensor count"),
    "key twice": (gguf([kv("k", U8, b"\1")] * 2), "'k' occurs twice"),
    "key with escape": (gguf([kv("a\x1b[2J", U8, b"\1")]), "printable"),
    "key not UTF-8": (gguf([kv(b"\xff", U8, b"\1")]), "not UTF-8"),
    "key too long": (gguf([kv("k" * 65_536, U8, b"\1")]), "at most 65,535"),
    "value cut": (gguf([kv("k", U64, b"\1")], alignment=1), "'k' needs 8 bytes"),
    "value not UTF-8": (gguf([kv("k", STRING, string(b"\xc3"))]), "'k' is not UTF-8"),
    "string past the end": (gguf([kv("k", STRING, struct.pack("<Q", 2**63))]), "'k' needs"),
    "value type": (gguf([kv("k", 13, b"\1")]), "unknown value type 13"),
    "bool": (gguf([kv("k", BOOL, b"\2")]), "stored as 2"),
    "bool in array": (gguf([kv("k", ARRAY, array(BOOL, 2, b"\1\2"))]), "neither 0 nor 1"),
    "numbers past the end": (gguf([kv("k", ARRAY, array(U64, 2**61))]), "'k' needs"),
    "strings past the end": (
        gguf([kv("k", ARRAY, array(STRING, 2, string("a") + struct.pack("<Q", 2**64 - 1)))]),
        "strings of metadata value 'k' run past the end",
    ),
    "arrays past the end": (gguf([kv("k", ARRAY, array(ARRAY, 2**60))]), "'k' needs"),
    "alignment 3": (gguf([kv("general.alignment", U32, struct.pack("<I", 3))]), "power of two"),
    "alignment 24": (gguf([kv("general.alignment", U32, struct.pack("<I", 24))]), "power of two"),
    "alignment u64": (gguf([kv("general.alignment", U64, struct.pack("<Q", 32))]), "32-bit"),
    "architecture a number": (gguf([kv("general.architecture", U8, b"\1")]), "must be a string"),
    "tensor twice": (gguf((), [info("a", (8,)), info("a", (8,), 0, 32)], bytes(64)), "a.* twice"),
    "tensor unnamed": (gguf((), [info("", (8,))], DATA_32), "non-empty"),
    "tensor name too long": (gguf((), [info("a" * 1025, (8,))], DATA_32), "at most 1,024"),
    "dimension 0": (gguf((), [info("a", (8, 0))], DATA_32), "dimension of 0"),
    "dimensions 5": (gguf((), [info("a", (1,) * 5)], DATA_32), "5 dimensions"),
    "product": (gguf((), [info("a", (2**32, 2**32))], DATA_32), "63 bits"),
    "product to zero": (gguf((), [info("a", (2**63, 2))], DATA_32), "63 bits"),
    "row": (gguf((), [info("a", (48,), 2)], bytes(64)), "block of 32"),
    "offset unaligned": (gguf((), [info("a", (1,), 0, 4)], DATA_32), "multiple of 32"),
    "offset past the end": (gguf((), [info("a", (8,), 0, 64)], DATA_32), "needs bytes 64"),
    "offset wraps": (gguf((), [info("a", (8,), 0, 2**64 - 32)], DATA_32), "needs bytes"),
    "data short": (gguf((), ONE, DATA_32[:-1]), "needs bytes 0 to 32"),
    "overlap": (gguf((), [info("a", (16,)), info("b", (8,), 0, 32)], bytes(64)), "overlaps"),
    "same place": (gguf((), [info("a", (8,)), info("b", (8,))], DATA_32), "overlaps"),
}  # fmt: skip


@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_fault_is_named(write, fault):
    data, message = HEADER_FAULTS[fault]
    path = write(data)
    with pytest.raises(MalformedFileError, match=message) as caught:
        open_checkpoint(path)
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gguf(version=1), "version 1"),
        (gguf(version=1, order=">"), "version 1"),
        (gguf(version=4), "version 4"),
        (b"tjgg" + bytes(40), "older than GGUF"),
        (gguf((), [info("a", (8,), 5)], DATA_32), "Q4_3.*removed"),
        (gguf((), [info("a", (8,), 138)], DATA_32), "unknown tensor type 138"),
    ],
)
def test_what_is_not_supported_is_named(write, data, message):
    with pytest.raises(UnsupportedModelError, match=message):
        open_checkpoint(write(data))


@pytest.mark.parametrize("depth", [4, 5, 100_000])
def test_nested_arrays_have_a_depth_limit(write, depth):
    value = array(U8, 1, b"\7")
    for _ in range(min(depth, 5) - 1):
        value = array(ARRAY, 1, value)
    value = array(ARRAY, 1) * max(0, depth - 5) + value
    path = write(gguf([kv("k", ARRAY, value)]))
    if depth <= gguf_values.MAX_ARRAY_DEPTH:
        assert open_checkpoint(path).metadata["k"][0][0][0].tolist() == [7]
    else:
        with pytest.raises(MalformedFileError, match="nests arrays"):
            open_checkpoint(path)


@pytest.mark.parametrize(
    ("module", "limit", "data", "message"),
    [
        (gguf_values, "MAX_STRINGS", [kv("k", ARRAY, array(STRING, 9, string("") * 9))], "strings"),
        (gguf_values, "MAX_ARRAYS", [kv(f"k{i}", ARRAY, array(U8, 0)) for i in range(9)], "arrays"),
        (gguf_reader, "MAX_KEYS", [kv(f"k{i}", U8, b"\1") for i in range(9)], "metadata count"),
        (gguf_values, "MAX_HEADER_BYTES", [kv("k", U8, b"\1") * 9], "header is larger than"),
    ],
)
def test_what_costs_more_than_its_bytes_is_limited(
    write, monkeypatch, module, limit, data, message
):
    path = write(gguf(data, counts=(0, 9) if len(data) == 9 else (0, len(data))))
    monkeypatch.setattr(module, limit, 9 if limit != "MAX_HEADER_BYTES" else 200)
    open_checkpoint(path)
    monkeypatch.setattr(module, limit, 8 if limit != "MAX_HEADER_BYTES" else 30)
    with pytest.raises(MalformedFileError, match=message):
        open_checkpoint(path)


def test_every_truncation_is_refused(write):
    kvs = [kv("a", STRING, string("xyz")), kv("b", ARRAY, array(STRING, 2, string("q") * 2))]
    whole = gguf(kvs, [info("w", (8,)), info("v", (8,), 0, 32)], bytes(64))
    open_checkpoint(write(whole)).close()
    for length in range(len(whole)):
        with pytest.raises(MalformedFileError):
            open_checkpoint(write(whole[:length]))


def test_a_file_that_shrinks_while_open_is_noticed(write):
    path = write(gguf((), ONE, DATA_32))
    with open_checkpoint(path) as checkpoint:
        with path.open("r+b") as file:
            file.truncate(40)
        with pytest.raises(MalformedFileError, match="shorter"):
            checkpoint.tensors["a"].bytes()


# -- split sets -------------------------------------------------------------------------------


def _part(number: object, count: object, name: str, total: int = 2) -> bytes:
    def u16(value: object) -> bytes:
        return struct.pack("<H", value)

    kvs = [
        kv("general.architecture", STRING, string("llama")),
        kv("split.no", U16, u16(number)),
        kv("split.count", U16, u16(count)),
        kv("split.tensors.count", I32, struct.pack("<i", total)),
    ]
    return gguf(kvs, [info(name, (8,))], DATA_32)


def test_any_member_opens_the_set(write):
    paths = [write(_part(i, 2, "ab"[i]), f"m-0000{i + 1}-of-00002.gguf") for i in range(2)]
    for path in paths:
        with open_checkpoint(path) as checkpoint:
            assert list(checkpoint.tensors) == ["a", "b"]
            assert checkpoint.files == paths
            assert checkpoint.tensors["b"].path == paths[1]


def test_missing_member_is_named(write):
    path = write(_part(1, 3, "b"), "m-00002-of-00003.gguf")
    with pytest.raises(
        ModelNotFoundError, match=r"m-00001-of-00003\.gguf: this member .* is missing"
    ):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (_part(0, 2, "b"), "split.no must be 1, not 0"),
        (_part(1, 3, "b"), "split.count must be 2, not 3"),
        (_part(1, 2, "a"), "'a' is in an earlier part"),
        (gguf((), [info("b", (8,))], DATA_32), "split.no must be 1, not None"),
        (gguf([kv("split.no", STRING, string("1"))]), "split.no must be 1, not '1'"),
    ],
)
def test_members_must_belong_together(write, second, message):
    write(second, "m-00002-of-00002.gguf")
    with pytest.raises(MalformedFileError, match=message):
        open_checkpoint(write(_part(0, 2, "a"), "m-00001-of-00002.gguf"))


def test_tensor_count_of_the_set_is_checked(write):
    write(_part(1, 2, "b", 3), "m-00002-of-00002.gguf")
    with pytest.raises(MalformedFileError, match=r"split\.tensors\.count is 3"):
        open_checkpoint(write(_part(0, 2, "a", 3), "m-00001-of-00002.gguf"))


@pytest.mark.parametrize("name", ["m-00003-of-00002.gguf", "m-00000-of-00002.gguf",
                                  "m-00001-of-99999.gguf", "m-00000-of-00000.gguf"])  # fmt: skip
def test_impossible_split_names(write, name):
    with pytest.raises(MalformedFileError, match="impossible"):
        open_checkpoint(write(_part(0, 2, "a"), name))


def test_a_renamed_member_is_refused(write):
    with pytest.raises(MalformedFileError, match="split set of 2"):
        open_checkpoint(write(_part(0, 2, "a"), "renamed.gguf"))


def test_a_set_of_one(write):
    with open_checkpoint(write(_part(0, 1, "a", 1), "m-00001-of-00001.gguf")) as checkpoint:
        assert list(checkpoint.tensors) == ["a"]
