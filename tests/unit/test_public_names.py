# SPDX-License-Identifier: Apache-2.0
"""What `import freehold` promises, and that importing it stays cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest

import freehold


def test_the_public_list_is_complete_and_sorted():
    assert freehold.__all__ == ["LLM", "FreeholdError", "SamplingParams", "__version__"]
    for name in freehold.__all__:
        assert getattr(freehold, name) is not None
    assert freehold.LLM.__module__ == "freehold.llm"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        freehold.nonsense  # noqa: B018 - the access is what is tested


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, freehold\n"
        "heavy = {'numpy', 'tokenizers', 'jinja2', 'rich', 'typer', 'torch', 'psutil'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
