# SPDX-License-Identifier: Apache-2.0
"""Finding a model at a path, and the typed view of its metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from freehold.errors import MalformedFileError, ModelNotFoundError, UnsupportedModelError
from freehold.formats import checkpoint as checkpoint_module
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.gguf_writer import write_gguf
from freehold.formats.safetensors_writer import write_safetensors
from freehold.formats.tensor_view import LazyTensor

WEIGHT = LazyTensor("w", (2,), "F32", lambda: np.zeros(8, np.uint8))


def gguf(path: Path, **options: object) -> list[Path]:
    path.parent.mkdir(exist_ok=True)
    return write_gguf(path, {"general.architecture": "llama"}, [WEIGHT], **options)


def hf(directory: Path, config: str | None = '{"model_type": "qwen2"}') -> Path:
    directory.mkdir(exist_ok=True)
    if config is not None:
        (directory / "config.json").write_text(config)
    return write_safetensors(directory / "model.safetensors", [WEIGHT])[0]


# -- what can be opened -----------------------------------------------------------------------


def test_gguf_file_and_directory(tmp_path):
    (file,) = gguf(tmp_path / "m.gguf")
    for path in (file, str(file), tmp_path):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.format == "gguf"
            assert checkpoint.architecture == "llama"
            assert checkpoint.path == Path(path)
            assert checkpoint.directory == tmp_path
            assert checkpoint.files == [file]
            assert checkpoint.nbytes == 8


def test_any_suffix_is_gguf_by_content(tmp_path):
    (file,) = gguf(tmp_path / "sha256-0123")
    assert open_checkpoint(file).architecture == "llama"


def test_directory_with_a_projector_beside_the_model(tmp_path):
    gguf(tmp_path / "m-Q4_0.gguf")
    gguf(tmp_path / "mmproj-m-F16.gguf")
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.files[0].name == "m-Q4_0.gguf"


def test_directory_with_one_split_set(tmp_path):
    tensors = [LazyTensor(name, (2,), "F32", lambda: np.zeros(8, np.uint8)) for name in "abc"]
    paths = write_gguf(tmp_path / "m.gguf", {}, tensors, max_shard_bytes=8)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.files == paths
        assert len(paths) == 3


def test_hugging_face_directory_and_its_file(tmp_path):
    file = hf(tmp_path)
    for path in (tmp_path, file):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.format == "safetensors"
            assert checkpoint.architecture == "qwen2"
            assert checkpoint.metadata == {"model_type": "qwen2"}
            assert checkpoint.directory == tmp_path


def test_bare_safetensors_opens_without_architecture(tmp_path):
    file = hf(tmp_path, config=None)
    with open_checkpoint(file) as checkpoint:
        assert checkpoint.architecture == ""
        assert checkpoint.metadata == {}
        assert list(checkpoint.tensors) == ["w"]


def test_single_file_wins_over_an_index(tmp_path):
    hf(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert open_checkpoint(tmp_path).files == [tmp_path / "model.safetensors"]


# -- what cannot ------------------------------------------------------------------------------


def test_absent(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no such file"):
        open_checkpoint(tmp_path / "absent.gguf")
    with pytest.raises(ModelNotFoundError, match="no such file"):
        open_checkpoint(tmp_path / "absent.bin")
    with pytest.raises(ModelNotFoundError, match="no such file"):
        open_checkpoint(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("name", ["x\0y.gguf", "x" * 5000, "loop"])
def test_impossible_paths(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ModelNotFoundError):
        open_checkpoint(tmp_path / name)


def test_empty_directory_and_empty_file(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no model"):
        open_checkpoint(tmp_path)
    for name in ("m.gguf", "m.safetensors"):
        (tmp_path / name).touch()
        with pytest.raises(MalformedFileError, match="empty"):
            open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["pipe.gguf", "pipe.safetensors"])
def test_pipes_and_directories_are_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelNotFoundError, match="not a regular file"):
        open_checkpoint(tmp_path / name)
    (tmp_path / "config.json").mkdir()
    hf(tmp_path, config=None)
    with pytest.raises(ModelNotFoundError, match="not a regular file"):
        open_checkpoint(tmp_path / "model.safetensors")


def test_permission_denied(tmp_path, monkeypatch):
    (file,) = gguf(tmp_path / "m.gguf")

    def deny(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("os.open", deny)
        with pytest.raises(ModelNotFoundError, match="permission denied"):
            open_checkpoint(file)
    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(ModelNotFoundError, match="cannot be read: Permission denied"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl"])
def test_pickles_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\4.")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(UnsupportedModelError, match=f"{name}: pickle") as caught:
            open_checkpoint(path)
        assert "safetensors" in caught.value.hint


def test_ambiguous_directories(tmp_path):
    gguf(tmp_path / "a.gguf")
    gguf(tmp_path / "b.gguf")
    with pytest.raises(ModelNotFoundError, match="2 GGUF models") as caught:
        open_checkpoint(tmp_path)
    assert "a.gguf, b.gguf" in caught.value.hint
    (tmp_path / "b.gguf").unlink()
    hf(tmp_path)
    with pytest.raises(ModelNotFoundError, match="GGUF and safetensors"):
        open_checkpoint(tmp_path)


def test_incomplete_hugging_face_directories(tmp_path):
    file = hf(tmp_path, config=None)
    with pytest.raises(ModelNotFoundError, match=r"without config\.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (tmp_path / name).write_bytes(file.read_bytes())
    file.unlink()
    with pytest.raises(ModelNotFoundError, match=r"2 safetensors files and no .*index"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "empty"),
        ("[]", "must be a JSON object"),
        ("{", "not valid JSON"),
        ('{"model_type": 3}', "model_type must be a string"),
        ('{"a": 1, "a": 1}', "occurs twice"),
    ],
)
def test_broken_config(tmp_path, config, message):
    hf(tmp_path, config)
    with pytest.raises(MalformedFileError, match=rf"config\.json.*{message}"):
        open_checkpoint(tmp_path)


def test_size_of_config_is_limited(tmp_path, monkeypatch):
    hf(tmp_path, '{"model_type": "llama"}' + " " * 100)
    open_checkpoint(tmp_path).close()
    monkeypatch.setattr(checkpoint_module, "MAX_CONFIG_BYTES", 100)
    with pytest.raises(MalformedFileError, match=r"config\.json: larger than"):
        open_checkpoint(tmp_path)


def test_files_are_let_go_after_a_failure(tmp_path):
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("no list of open descriptors on this system")
    before = len(list(descriptors.iterdir()))
    hf(tmp_path, '{"model_type": 3}')
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(60))
    for path in (tmp_path / "model.safetensors", tmp_path / "broken.gguf"):
        for _ in range(3):
            with pytest.raises((MalformedFileError, UnsupportedModelError)):
                open_checkpoint(path)
    assert len(list(descriptors.iterdir())) == before


# -- typed metadata ---------------------------------------------------------------------------


@pytest.fixture(params=["gguf", "hf"])
def checkpoint(request, tmp_path):
    """The same values from a GGUF file and from a config.json."""
    values = '{"i": 7, "f": 0.5, "b": true, "s": "x", "is": [1, 2], "fs": [0.5], "ss": ["p", "q"]}'
    if request.param == "hf":
        path = hf(tmp_path, values)
    else:
        (path,) = write_gguf(tmp_path / "m.gguf", json.loads(values), [WEIGHT])
    with open_checkpoint(path) as opened:
        yield opened


def test_typed_getters(checkpoint):
    assert checkpoint.get_int("i") == 7
    assert checkpoint.get_float("f") == 0.5
    assert checkpoint.get_float("i") == 7.0
    assert checkpoint.get_bool("b") is True
    assert checkpoint.get_str("s") == "x"
    assert checkpoint.get_ints("is") == [1, 2]
    assert checkpoint.get_floats("fs") == [0.5]
    assert checkpoint.get_floats("is") == [1.0, 2.0]
    assert checkpoint.get_strings("ss") == ["p", "q"]
    assert checkpoint.get("absent") is None
    assert checkpoint.get("absent", 3) == 3
    assert checkpoint.get_int("absent", 3) == 3
    assert checkpoint.get_bool("absent", False) is False
    assert checkpoint.get_strings("absent", []) == []
    assert checkpoint.tensor("w").shape == (2,)


GETTERS = {
    "get_int": "i", "get_float": "f", "get_bool": "b", "get_str": "s",
    "get_ints": "is", "get_floats": "fs", "get_strings": "ss",
}  # fmt: skip


@pytest.mark.parametrize("getter", GETTERS)
def test_getters_refuse_other_types_and_absence(checkpoint, getter):
    fine = {GETTERS[getter]}
    fine |= {"i"} if getter == "get_float" else set()
    fine |= {"is"} if getter == "get_floats" else set()
    for key in set(GETTERS.values()) - fine:
        with pytest.raises(MalformedFileError, match=rf"{key} must be .* not "):
            getattr(checkpoint, getter)(key)
    with pytest.raises(MalformedFileError, match="absent is missing"):
        getattr(checkpoint, getter)("absent")
    with pytest.raises(MalformedFileError, match=r"'blk\.9' is missing"):
        checkpoint.tensor("blk.9")


def test_absurd_numbers_in_config(tmp_path):
    big = "1" + "0" * 400
    hf(tmp_path, f'{{"i": {big}, "is": [{big}], "null": null}}')
    with open_checkpoint(tmp_path) as checkpoint:
        for getter, key in (("get_float", "i"), ("get_floats", "is"), ("get_int", "null")):
            with pytest.raises(MalformedFileError) as caught:
                getattr(checkpoint, getter)(key)
            assert len(caught.value.message) < 300
