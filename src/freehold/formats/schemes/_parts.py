# SPDX-License-Identifier: Apache-2.0
"""What every scheme needs: parts by name, checked before use, and numbers out of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.formats.gguf_types import PLAIN_DTYPES
from freehold.formats.strict_json import describe
from freehold.formats.tensor_view import TensorView
from freehold.quants import small_floats

FloatArray = npt.NDArray[np.float32]

SCALES = ("F32", "F16", "BF16")  # types of a scale that is no eight-bit float
_ELEMENTS = PLAIN_DTYPES | {
    "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"),
    "F8_E4M3": np.dtype("u1"), "F8_E5M2": np.dtype("u1"), "F8_E8M0": np.dtype("u1"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parts:
    """The tensors of a checkpoint and its `quantization_config`."""

    tensors: Mapping[str, TensorView]
    settings: Mapping[str, Any]
    where: str

    def ending(self, suffix: str) -> Iterator[tuple[str, TensorView]]:
        """Every tensor whose name ends so: what comes before, and the tensor."""
        for name, view in self.tensors.items():
            if name.endswith(suffix) and name != suffix:
                yield name.removesuffix(suffix), view

    def find(self, name: str, *qtypes: str) -> TensorView | None:
        """The tensor called `name`, or None; MalformedFileError where its type is another."""
        view = self.tensors.get(name)
        if view is not None and view.qtype not in qtypes:
            raise self.bad(view, f"has type {view.qtype}, not {' or '.join(qtypes)}")
        return view

    def need(self, name: str, *qtypes: str) -> TensorView:
        """The tensor called `name`; MalformedFileError where there is none."""
        view = self.find(name, *qtypes)
        if view is None:
            raise MalformedFileError(f"{self.where}: the tensor {name[:100]!r} is missing")
        return view

    def check_shape(self, view: TensorView, *shapes: tuple[int, ...]) -> None:
        """MalformedFileError unless the tensor has one of the shapes."""
        if view.shape not in shapes:
            fitting = " or ".join(str(list(shape)) for shape in shapes)
            raise self.bad(view, f"has shape {list(view.shape)}, not {fitting}")

    def bad(self, view: TensorView, fault: str) -> MalformedFileError:
        """The error about a tensor; `fault` completes the sentence."""
        return MalformedFileError(f"{self.where}: tensor {view.name[:100]!r} {fault}")

    # -- settings ------------------------------------------------------------------------------

    def wrong(self, key: str, rule: str, value: object) -> MalformedFileError:
        """The error about a setting."""
        return MalformedFileError(
            f"{self.where}: {key} of quantization_config must be {rule}, not {describe(value)}"
        )

    def unsupported(self, what: str) -> UnsupportedModelError:
        """The error about a variation freehold lacks."""
        return UnsupportedModelError(
            f"{self.where} holds weights quantised {what}, which freehold cannot read",
            hint="use the unquantised weights or a GGUF file",
        )

    def choice(self, key: str, default: Any, *allowed: Any) -> Any:
        """A setting that is one of a few values; UnsupportedModelError for others."""
        value = self.settings.get(key, default)
        # 1 == True: types must agree, too
        if not any(value == a and type(value) is type(a) for a in allowed):
            raise self.unsupported(f"with {key} = {describe(value)}")
        return value


def group_size_of(parts: Parts, width: int, settings: Mapping[str, Any] | None = None) -> int:
    """`group_size`: columns that share a scale; −1 and None stand for all `width` of them."""
    value = (parts.settings if settings is None else settings).get("group_size", 128)
    if value is None or value == -1:
        return max(1, width)
    if type(value) is not int or not 0 < value < 1 << 31:
        raise parts.wrong("group_size", "a number of columns, or -1", value)
    return value


def tile_of(parts: Parts, key: str, value: object) -> tuple[int, int]:
    """Rows and columns that share a scale, from the setting `key`."""
    if isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value):
        rows, columns = value
        if 0 < rows < 1 << 31 and 0 < columns < 1 << 31:
            return rows, columns
    raise parts.wrong(key, "two sizes", value)


def elements(view: TensorView) -> npt.NDArray[Any]:
    """The stored elements with the tensor's shape. Types NumPy lacks come as their bits."""
    return view.bytes().view(_ELEMENTS[view.qtype]).reshape(view.shape)


def as_floats(values: npt.NDArray[Any], qtype: str) -> FloatArray:
    """Some of the elements of a tensor of type `qtype`, decoded."""
    if qtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    if qtype.startswith("F8_"):
        return small_floats.decode(np.ascontiguousarray(values), qtype)
    floats: FloatArray = values.astype(np.float32)
    return floats


def unpack_words(
    words: npt.NDArray[Any], bits: int, order: tuple[int, ...] | None = None
) -> npt.NDArray[np.uint8]:
    """32-bit words [n, k] to the integers packed in each, lowest bits first: [n, k · 32/bits].

    `order` gives the position within a word's integers of each stored one."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    wide = np.ascontiguousarray(words).view(np.uint32)[:, :, None] >> shifts
    out = (wide & np.uint32((1 << bits) - 1)).astype(np.uint8)
    if order is not None:
        placed = np.empty_like(out)
        placed[:, :, list(order)] = out
        out = placed
    return out.reshape(len(words), -1)
