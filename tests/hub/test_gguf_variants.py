# SPDX-License-Identifier: Apache-2.0
"""Files of a repository as variants: labels, splits, what stands beside, and the choice."""

from __future__ import annotations

import pytest

from freehold.errors import DownloadError, ModelNotFoundError
from freehold.hub.gguf_variants import choose, find_variants, quant_label, split_names
from freehold.hub.model_files import is_licence, select, select_file
from freehold.hub.remote import RemoteFile


def files(*names: str) -> list[RemoteFile]:
    return [RemoteFile(name, 10, f"https://h.example/{name}") for name in names]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Llama-3.2-3B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("llama-3.2-3b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("model.Q8_0.gguf", "Q8_0"),
        ("Q6_K/model-00001-of-00002.gguf", "Q6_K"),
        ("x-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("x-IQ3_XXS.gguf", "IQ3_XXS"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("x-fp16.gguf", "F16"),
        ("x-bf16-00001-of-00003.gguf", "BF16"),
        ("x-Q4_0-Q8_0.gguf", "Q8_0"),
        ("x-TQ1_0.gguf", "TQ1_0"),
        ("Qwen2.5-7B.gguf", None),
        ("FAQ4_0x.gguf", None),
    ],
)
def test_labels(name: str, label: str | None) -> None:
    assert quant_label(name) == label


def test_splits_come_together_in_order() -> None:
    names = [f"Q4_0/m-Q4_0-{i:05d}-of-00003.gguf" for i in (2, 3, 1)]
    (variant,) = find_variants(files(*names, "README.md"))
    assert [f.name[-19:-14] for f in variant.files] == ["00001", "00002", "00003"]
    with pytest.raises(DownloadError, match="00003"):
        find_variants(files(*names[::2], "m-00001-of-00003.gguf"))
    with pytest.raises(DownloadError):
        split_names("m-00009-of-00003.gguf")
    with pytest.raises(DownloadError):
        find_variants(files("m-00001-of-99999.gguf"))


def test_what_stands_beside_is_no_variant() -> None:
    beside = ["mmproj-model-f16.gguf", "imatrix.gguf", "x-lora.gguf", "mtp-x-Q4_0.gguf"]
    assert [v.label for v in find_variants(files("m-Q4_0.gguf", *beside))] == ["Q4_0"]


def test_the_choice() -> None:
    variants = find_variants(files("m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-F16.gguf"))
    assert choose(variants, None, None, "hf:o/r").label == "Q4_K_M"
    assert choose(variants, "q8_0", None, "hf:o/r").label == "Q8_0"
    assert choose(variants, None, lambda found: found[1], "hf:o/r") is variants[1]
    assert choose(variants, None, lambda found: None, "hf:o/r").label == "Q4_K_M"
    with pytest.raises(ModelNotFoundError, match="Q5_K_M") as caught:
        choose(variants, "Q5_K_M", None, "hf:o/r")
    assert caught.value.hint == "it has F16, Q4_K_M, Q8_0"
    two = find_variants(files("a-Q4_0.gguf", "b-Q4_0.gguf"))
    with pytest.raises(ModelNotFoundError, match="2 models of quant Q4_0"):
        choose(two, None, None, "hf:o/r")


def test_programs_and_pickles_never_come() -> None:
    listed = files(
        "config.json", "model.safetensors", "pytorch_model.bin", "model.pt", "modeling_x.py",
        "tokenizer.json", "evil.pkl", "LICENSE", "README.md", "sub/model.safetensors",
        "additional_chat_templates/tool_use.jinja", "consolidated.safetensors", "params.json",
        "onnx/model.onnx", "LICENSE.py", "training_args.bin", "requirements.txt",
    )  # fmt: skip
    chosen, entry, label = select(listed, None, None, "hf:o/r")
    assert {f.name for f in chosen} == {
        "config.json", "model.safetensors", "tokenizer.json", "LICENSE", "README.md",
        "additional_chat_templates/tool_use.jinja", "params.json",
    }  # fmt: skip
    assert (entry, label) == ("", None)
    with pytest.raises(ModelNotFoundError, match="neither GGUF nor safetensors"):
        select(files("pytorch_model.bin", "config.json"), None, None, "hf:o/r")
    with pytest.raises(ModelNotFoundError, match="not sorted by quant"):
        select(listed, "Q4_0", None, "hf:o/r")


def test_one_file_by_name_brings_its_splits() -> None:
    listed = files("a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "b.gguf", "NOTICE")
    chosen, entry = select_file(listed, "a-00002-of-00002.gguf", "hf:o/r")
    assert [f.name for f in chosen] == [listed[0].name, listed[1].name, "NOTICE"]
    assert entry == listed[0].name
    with pytest.raises(ModelNotFoundError, match="no file"):
        select_file(listed, "c.gguf", "hf:o/r")


def test_texts_of_licences() -> None:
    for name in ("LICENSE", "LICENSE.txt", "LICENCE.md", "NOTICE", "USE_POLICY.md", "COPYING"):
        assert is_licence(name)
    for name in ("LICENSE.py", "license.exe", "LICENSE/x", "my-license", "LICENSE.html"):
        assert not is_licence(name)
