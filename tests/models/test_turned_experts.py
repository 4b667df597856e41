# SPDX-License-Identifier: Apache-2.0
"""Experts stored input first or with gate and up in turn, seen as plain matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from freehold import quants
from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.models._turned_experts import PickedColumns, picked_stack, turned_stack

EVEN, ODD, ALL = slice(0, None, 2), slice(1, None, 2), slice(None)


@dataclass
class Stored:
    """A tensor of a file."""

    values: np.ndarray
    qtype: str = "F32"
    name: str = "experts"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def nbytes(self) -> int:
        return self.bytes().size

    def bytes(self) -> np.ndarray:
        return quants.get(self.qtype).encode(self.values.ravel())

    def to_f32(self) -> np.ndarray:
        return quants.get(self.qtype).decode(self.bytes()).reshape(self.shape)

    def file_span(self) -> None:
        return None


def stored(*shape: int, qtype: str = "F32") -> Stored:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return Stored(values, qtype)


@pytest.mark.parametrize("qtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("picked", [EVEN, ODD, ALL, slice(3), slice(3, None)])
def test_a_turned_stack_is_the_transpose(picked, qtype):
    tensor = stored(4, 5, 6, qtype=qtype)
    want = tensor.to_f32().transpose(0, 2, 1)[:, picked]
    stack = turned_stack(tensor, picked, "file")
    assert (stack.shape, stack.qtype) == (want.shape, qtype)
    np.testing.assert_array_equal(stack.to_f32(), want)
    assert stack.nbytes == stack.bytes().size == want.size * (4 if qtype == "F32" else 2)
    part = stack.part(2)
    assert part.shape == want.shape[1:]
    np.testing.assert_array_equal(part.to_f32(), want[2])
    assert part.nbytes == part.bytes().size
    assert part.file_span() is None


@pytest.mark.parametrize("qtype", ["F32", "MXFP4", "Q8_0"])
@pytest.mark.parametrize("picked", [EVEN, ODD, ALL])
def test_rows_in_turn_keep_their_blocks(picked, qtype):
    tensor = stored(3, 8, 64, qtype=qtype)
    stack = picked_stack(tensor, picked, "file")
    want = tensor.to_f32()[:, picked]
    assert stack.shape == want.shape
    np.testing.assert_array_equal(stack.to_f32(), want)
    np.testing.assert_array_equal(stack.part(1).to_f32(), want[1])
    rows = tensor.bytes().reshape(3, 8, -1)[:, picked]
    np.testing.assert_array_equal(stack.bytes(), rows.ravel())
    assert stack.nbytes == rows.size


def test_columns_of_a_bias():
    tensor = stored(3, 8, qtype="BF16")
    for picked in (EVEN, ODD):
        view = PickedColumns(tensor, picked)
        assert view.shape == (3, 4)
        np.testing.assert_array_equal(view.to_f32(), tensor.to_f32()[:, picked])
        np.testing.assert_array_equal(view.bytes().view("<f4"), view.to_f32().ravel())
        assert view.nbytes == 48


@pytest.mark.parametrize("make", [turned_stack, picked_stack])
@pytest.mark.parametrize("shape", [(4, 5), (), (2, 3, 4, 5), (2, 0, 4)])
def test_other_shapes_are_refused(make, shape):
    with pytest.raises(MalformedFileError, match="experts has shape"):
        make(stored(*shape), ALL, "file")


def test_blocks_cannot_be_turned():
    with pytest.raises(UnsupportedModelError, match="stored input first as Q8_0"):
        turned_stack(stored(2, 3, 32, qtype="Q8_0"), ALL, "file")
