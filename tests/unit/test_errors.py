# SPDX-License-Identifier: Apache-2.0
"""The error tree: every kind is reachable from the base, and messages carry their hints."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from freehold import errors

KINDS = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.FreeholdError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_message_and_hint(kind):
    error = kind("the file is cut short", hint="fetch it again")
    assert error.message == "the file is cut short"
    assert error.hint == "fetch it again"
    assert str(error) == "the file is cut short (fetch it again)"
    assert str(kind("the file is cut short")) == "the file is cut short"


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = set(re.findall(r"\b(\w+Error)\b", errors.__doc__))
    assert drawn == {kind.__name__ for kind in KINDS}


def test_what_the_user_can_mend_is_a_user_error():
    blameless = {"FreeholdError", "CapacityError", "EngineError"}
    users = {kind.__name__ for kind in KINDS if issubclass(kind, errors.UserError)}
    assert users == {kind.__name__ for kind in KINDS} - blameless


def test_parameter_errors_are_value_errors_for_callers_who_expect_those():
    assert issubclass(errors.InvalidParameterError, ValueError)
    assert issubclass(errors.ContextLengthError, ValueError)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_errors_survive_a_process_boundary(kind):
    copy = pickle.loads(pickle.dumps(kind("broken", hint="mend it")))
    assert (type(copy), copy.message, copy.hint) == (kind, "broken", "mend it")
