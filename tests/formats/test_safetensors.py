# SPDX-License-Identifier: Apache-2.0
"""safetensors: read and written, one file and shards, right and wrong."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.errors import (
    InvalidParameterError,
    MalformedFileError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from freehold.formats import safetensors, safetensors_writer, strict_json
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.safetensors import DTYPE_BITS, read_safetensors, read_sharded
from freehold.formats.safetensors_writer import write_safetensors
from freehold.formats.tensor_view import LazyTensor


def stored(header: object, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def lazy(name: str, qtype: str, shape: tuple[int, ...]) -> LazyTensor:
    nbytes = int(np.prod(shape, dtype=int)) * DTYPE_BITS[qtype] // 8
    return LazyTensor(name, shape, qtype, lambda: np.arange(nbytes, dtype=np.uint8))


@pytest.fixture
def write(tmp_path):
    def save(data: bytes, name: str = "x.safetensors"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return save


# -- what is right ----------------------------------------------------------------------------


def test_views(write):
    data = np.array([1.5, -2], "<f4").tobytes() + b"\x80\x3f\0\xc0" + b"\1\2\3"
    header = {
        "b": entry("BF16", [2, 1], [8, 12]),
        "a": entry(),
        "q": entry("F8_E4M3", [3], [12, 15]),
        "none": entry("F16", [0, 3], [15, 15]),
    }
    path = write(stored(header, data))
    contents = read_safetensors(path)
    assert list(contents.tensors) == ["b", "a", "q", "none"]
    assert contents.tensors["a"].to_f32().tolist() == [1.5, -2]
    assert contents.tensors["b"].to_f32().tolist() == [[1], [-2]]
    assert contents.tensors["none"].to_f32().shape == (0, 3)
    view = contents.tensors["q"]
    assert path.read_bytes()[view.offset :] == view.bytes().tobytes() == b"\1\2\3"
    with pytest.raises(UnsupportedModelError, match="'q' has type F8_E4M3"):
        view.to_f32()


@pytest.mark.parametrize(
    ("qtype", "numpy_type"),
    [("F64", "<f8"), ("I64", "<i8"), ("I32", "<i4"), ("I8", "i1"), ("U16", "<u2"), ("BOOL", "?")],
)
def test_plain_numbers_are_converted(write, qtype, numpy_type):
    values = np.array([1, 0, 1], numpy_type)
    header = {"a": entry(qtype, [3], [0, values.nbytes])}
    with open_checkpoint(write(stored(header, values.tobytes()))) as checkpoint:
        assert checkpoint.tensors["a"].to_f32().tolist() == [1, 0, 1]


def test_the_reference_reads_ours_and_we_read_the_reference(tmp_path):
    reference = pytest.importorskip("safetensors.numpy")
    arrays = {
        "h": np.arange(3, dtype=np.float16),
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "i": np.array([2**40], np.int64),
        "s": np.array(2.5, np.float32),
    }
    theirs = tmp_path / "theirs.safetensors"
    reference.save_file(arrays, theirs, metadata={"format": "np"})
    contents = read_safetensors(theirs)
    assert contents.header_metadata == {"format": "np"}
    for name, array in arrays.items():
        assert contents.tensors[name].bytes().tobytes() == array.tobytes()
    (ours,) = write_safetensors(
        tmp_path / "ours.safetensors", contents.tensors.values(), metadata={"format": "np"}
    )
    for name, array in reference.load_file(ours).items():
        assert array.dtype == arrays[name].dtype
        assert np.array_equal(array, arrays[name])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1).filter(
            lambda name: name != "__metadata__"  # the one name the format keeps for itself
        ),
        st.tuples(
            st.sampled_from(sorted(DTYPE_BITS)), st.lists(st.integers(0, 4), max_size=4).map(tuple)
        ),
        max_size=6,
    ),
    st.none() | st.integers(0, 64),
)
def test_anything_written_reads_back(tmp_path, tensors, max_shard_bytes):
    # Whole bytes only: the 4- and 6-bit types need four values together.
    sources = [
        lazy(name, qtype, (*shape, 4) if DTYPE_BITS[qtype] < 8 else shape)
        for name, (qtype, shape) in tensors.items()
    ]
    paths = write_safetensors(
        tmp_path / "model.safetensors", sources, max_shard_bytes=max_shard_bytes
    )
    read = read_safetensors if len(paths) == 1 else read_sharded
    contents = read(paths[-1])
    assert contents.tensors.keys() == tensors.keys()
    for source in sources:
        view = contents.tensors[source.name]
        assert (view.shape, view.qtype) == (source.shape, source.qtype)
        assert np.array_equal(view.bytes(), source.bytes())


def test_tensors_are_aligned_to_their_width(tmp_path):
    sources = [lazy("a", "U8", (3,)), lazy("b", "F16", (3,)), lazy("c", "I64", (1,))]
    (path,) = write_safetensors(tmp_path / "x.safetensors", sources)
    for view in read_safetensors(path).tensors.values():
        assert view.offset % (DTYPE_BITS[view.qtype] // 8) == 0


# -- what is wrong ----------------------------------------------------------------------------

EIGHT = bytes(8)
FAULTS = {
    "length cut": (b"\1\0\0", "ends inside the header length"),
    "length": ((9).to_bytes(8, "little") + b"{}", "header length is 9"),
    "length over 100 MB": ((2**27).to_bytes(8, "little") + b"{}", "at most 100,000,000"),
    "leading space": (stored(b" {}"), "does not begin"),
    "not JSON": (stored(b"{nope}"), "not valid JSON"),
    "two objects": (stored(b"{}{}"), "not valid JSON"),
    "not UTF-8": (stored(b'{"\xff": 1}'), "not UTF-8"),
    "half a surrogate pair": (stored(b'{"\\ud800": 1}'), "not UTF-8"),
    "huge number": (stored(b'{"a": ' + b"9" * 5000 + b"}"), "not valid JSON"),
    "deep": (stored(b'{"a": ' + b"[" * 100_000), "nested too deeply"),
    "name twice": (stored(b'{"a": 1, "a": 2}'), "'a' occurs twice"),
    "key twice": (stored(b'{"a": {"dtype": "F32", "dtype": "F16"}}'), "'dtype' occurs twice"),
    "metadata": (stored({"__metadata__": {"a": 1}}), "__metadata__"),
    "metadata list": (stored({"__metadata__": []}), "__metadata__"),
    "entry": (stored({"a": []}), "must have dtype"),
    "entry short": (stored({"a": {"dtype": "F32", "shape": []}}), "must have dtype"),
    "entry long": (stored({"a": {**entry(), "x": 1}}, EIGHT), "nothing else"),
    "name empty": (stored({"": entry()}, EIGHT), "printable"),
    "name control": (stored({"a\x1b": entry()}, EIGHT), "printable"),
    "name long": (stored({"a" * 1025: entry()}, EIGHT), "1,024"),
    "shape negative": (stored({"a": entry(shape=[-2])}, EIGHT), "shape"),
    "shape bool": (stored({"a": entry(shape=[True, 2])}, EIGHT), "shape"),
    "shape float": (stored({"a": entry(shape=[2.0])}, EIGHT), "shape"),
    "shape huge": (stored({"a": entry(shape=[2**63])}, EIGHT), "shape"),
    "shape product": (stored({"a": entry(shape=[2**62, 4])}, EIGHT), "beyond what memory"),
    "shape with 0": (stored({"a": entry(shape=[2**62, 0], offsets=[0, 0])}), "beyond what memory"),
    "shape long": (stored({"a": entry(shape=[1] * 17)}, EIGHT), "shape"),
    "offsets one": (stored({"a": entry(offsets=[0])}, EIGHT), "data_offsets"),
    "offsets negative": (stored({"a": entry(offsets=[-8, 0])}, EIGHT), "data_offsets"),
    "offsets reversed": (stored({"a": entry(offsets=[8, 0])}, EIGHT), "data_offsets"),
    "offsets past the end": (stored({"a": entry(offsets=[8, 16])}, EIGHT), "has 8 bytes"),
    "offsets null": (stored({"a": entry(offsets=[0, None])}, EIGHT), "data_offsets"),
    "span": (stored({"a": entry(shape=[3])}, EIGHT), "does not fit"),
    "half bytes": (stored({"a": entry("F4", [3], [0, 1])}, b"\0"), "does not fit"),
    "overlap": (stored({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), "overlaps"),
    "same": (stored({"a": entry(), "b": entry()}, EIGHT), "overlaps"),
    "hole": (stored({"a": entry(offsets=[4, 12])}, bytes(12)), "hole"),
    "rest": (stored({"a": entry()}, bytes(9)), "belong to none"),
    "rest alone": (stored({}, b"\0"), "belong to none"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named(write, fault):
    data, message = FAULTS[fault]
    path = write(data)
    with pytest.raises(MalformedFileError, match=message) as caught:
        open_checkpoint(path)
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 500


def test_unknown_dtype_is_named(write):
    with pytest.raises(UnsupportedModelError, match="'a' has unknown dtype 'Q99'"):
        open_checkpoint(write(stored({"a": entry("Q99")}, EIGHT)))


def test_depth_near_the_recursion_limit(write):
    limit = sys.getrecursionlimit()
    for depth in range(limit - 250, limit + 10):
        nested = b"[" * depth + b"]" * depth
        header = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": ' + nested + b"}}"
        with pytest.raises(MalformedFileError, match=r"nested too deeply|not two positions"):
            open_checkpoint(write(stored(header, EIGHT)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 999, repr("x" * 80)),
        (10**40, "a number of more than 30 digits"),
        ([1, -2], "[1, -2]"),
        ([1] * 21, "a list of 21"),
        ([[]], "a list of 1"),
        ({"a": 1}, "a dict of 1"),
        (None, "None"),
        (True, "True"),
        (0.5, "0.5"),
    ],
)
def test_values_in_messages_are_short(value, text):
    assert strict_json.describe(value) == text


def test_number_of_json_values_is_limited(write, monkeypatch):
    path = write(stored({"a": entry()}, EIGHT))
    open_checkpoint(path).close()
    monkeypatch.setattr(strict_json, "MAX_SEPARATORS", 4)
    with pytest.raises(MalformedFileError, match="more than 4 JSON values"):
        open_checkpoint(path)


def test_every_truncation_is_refused(write):
    whole = stored({"a": entry()}, EIGHT)
    for length in range(len(whole)):
        with pytest.raises(MalformedFileError):
            open_checkpoint(write(whole[:length]))


# -- shards -----------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path):
    """A model of two shards and an index."""
    sources = [lazy("a", "F32", (2,)), lazy("b", "F16", (4,))]
    paths = write_safetensors(tmp_path / "model.safetensors", sources, max_shard_bytes=8)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return paths


def reindex(index, **weight_map):
    index.write_text(json.dumps({"weight_map": weight_map}))


def test_index_and_shards(sharded, tmp_path):
    one, two, index = sharded
    assert [path.name for path in sharded] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert json.loads(index.read_text()) == {
        "metadata": {"total_size": 16},
        "weight_map": {"a": one.name, "b": two.name},
    }
    for path in (tmp_path, one, two, index):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.path == path
            assert checkpoint.architecture == "llama"
            assert checkpoint.files == [one, two]
            assert checkpoint.tensors["b"].path == two


def test_missing_shard_is_named(sharded, tmp_path):
    sharded[1].unlink()
    with pytest.raises(ModelNotFoundError, match=r"00002-of-00002\.safetensors: this shard is"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..\\x.safetensors",
     "C:x.safetensors", ".x.safetensors", "x.bin", "", 5, None, "x\0.safetensors"],
)  # fmt: skip
def test_shards_stay_in_the_directory(sharded, tmp_path, name):
    (tmp_path / "sub").mkdir()
    for place in (tmp_path.parent / "x.safetensors", tmp_path / "sub" / "x.safetensors"):
        place.write_bytes(sharded[0].read_bytes())
    reindex(sharded[2], a=name)
    with pytest.raises(MalformedFileError, match=r"not the name of a \.safetensors file"):
        open_checkpoint(tmp_path)


def test_links_into_a_cache_are_followed(sharded, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for path in sharded[:2]:
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    with open_checkpoint(tmp_path) as checkpoint:
        assert list(checkpoint.tensors) == ["a", "b"]


def test_index_must_agree_with_the_shards(sharded, tmp_path):
    one, two, index = sharded
    reindex(index, a=one.name, c=two.name)
    with pytest.raises(MalformedFileError, match="'c' is not in model-00002"):
        open_checkpoint(tmp_path)
    reindex(index, a=one.name, b=one.name)
    with pytest.raises(MalformedFileError, match="'b' is not in model-00001"):
        open_checkpoint(tmp_path)
    two.write_bytes(one.read_bytes())
    reindex(index, a=one.name, b=two.name)
    with pytest.raises(MalformedFileError, match="'a' is in another shard"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"weight_map": []}', '{"weight_map": {}}', "{"])
def test_broken_index(sharded, tmp_path, text):
    sharded[2].write_text(text)
    with pytest.raises(MalformedFileError, match="index"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [("MAX_HEADER_BYTES", 60, "index.json: larger than 60"), ("MAX_SHARDS", 1, "at most 1")],
)
def test_size_of_an_index_is_limited(sharded, tmp_path, monkeypatch, limit, value, message):
    monkeypatch.setattr(safetensors, limit, value)
    with pytest.raises(MalformedFileError, match=message):
        open_checkpoint(tmp_path)


# -- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (LazyTensor("a", (32,), "Q8_0", lambda: np.zeros(34, np.uint8)), "no 'Q8_0'"),
        (LazyTensor("a", (3,), "F4", lambda: np.zeros(2, np.uint8)), "cannot have shape"),
        (LazyTensor("a", (-1,), "U8", lambda: np.zeros(0, np.uint8)), "cannot have shape"),
        (LazyTensor("a", (3,), "U8", lambda: np.zeros(2, np.uint8)), "needs 3 bytes"),
        (LazyTensor("__metadata__", (0,), "U8", lambda: np.zeros(0, np.uint8)), "impossible"),
        (LazyTensor("", (0,), "U8", lambda: np.zeros(0, np.uint8)), "impossible"),
    ],
)
def test_what_safetensors_cannot_express_is_refused(tmp_path, source, message):
    with pytest.raises(InvalidParameterError, match=message):
        write_safetensors(tmp_path / "x.safetensors", [source])
    assert not list(tmp_path.iterdir())


def test_size_of_a_header_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_writer, "MAX_HEADER_BYTES", 50)
    with pytest.raises(InvalidParameterError, match="header of 56 bytes is too large"):
        write_safetensors(tmp_path / "x.safetensors", [lazy("a", "F32", (2,))])
