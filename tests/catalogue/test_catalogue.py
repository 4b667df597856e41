# SPDX-License-Identifier: Apache-2.0
"""What the catalogue says: complete, from sources, and of the size that each shape adds up to."""

from __future__ import annotations

import math
import re
from datetime import date
from pathlib import Path
from types import MappingProxyType

import pytest

from freehold.catalogue.catalogue import find, get, members
from freehold.catalogue.family_file import COMPILED, FAMILIES, compile_families, read_family
from freehold.catalogue.member import ARTEFACTS, Member
from freehold.errors import MalformedFileError, ModelNotFoundError, UnsupportedModelError
from freehold.formats.checkpoint import Checkpoint
from freehold.licences.origins import origin_of
from freehold.models.blocks import expected_of
from freehold.models.config import families, family_of, read_config
from freehold.types import SamplingParams

MEMBERS = pytest.mark.parametrize("member", members(), ids=lambda m: m.name)
SHAPED = [m for m in members() if m.shape]


def checkpoint_of(member: Member) -> Checkpoint:
    """A model of which nothing is on disk but its config.json."""
    return Checkpoint(
        path=Path(member.name), directory=Path(), format="safetensors",
        architecture=str(member.shape["model_type"]), metadata=member.shape,
        value_types=MappingProxyType({}), tensors=MappingProxyType({}), files=[], _open=[],
    )  # fmt: skip


def test_what_is_read_at_run_time_is_what_the_files_say():
    """`python tools/catalogue.py` after a change of a file under `families/`."""
    assert COMPILED.read_text("utf-8") == compile_families()


@MEMBERS
def test_every_member_has_sources_dates_and_evidence(member):
    assert member.sources
    assert all(re.fullmatch(r"https://[\w.-]+/\S+", url) for url in member.sources)
    assert date(2019, 1, 1) < member.released <= date(2026, 12, 31)
    assert member.released <= member.checked or member.checked >= date(2026, 1, 1)
    assert set(member.evidence) == set(ARTEFACTS)
    for evidence in member.evidence.values():
        assert evidence.state == "unknown" or evidence.url.startswith("https://")


@MEMBERS
def test_what_was_not_read_at_its_own_page_says_so(member):
    """A list that somebody gathered is no vendor's word, and nobody read the verdicts on the Open
    Source AI Definition again."""
    for said in (*member.evidence.values(), *member.assessments):
        if "hf_models.json" in said.url:
            assert said.how == "aggregate"
        if said.url.startswith("https://opensource.org/ai"):
            assert said.how == "memory"


def test_ways_of_reading_are_a_closed_list(tmp_path):
    text = (FAMILIES / "t5.toml").read_text("utf-8").replace('how = "memory"', 'how = "hearsay"')
    (tmp_path / "t5.toml").write_text(text, "utf-8")
    with pytest.raises(MalformedFileError, match="unknown way"):
        read_family(tmp_path / "t5.toml")


@MEMBERS
def test_every_member_says_what_it_is_for_and_how_large_it_is(member):
    assert member.tasks
    assert 0 < member.active_parameters <= member.parameters
    assert member.other_parameters < member.parameters
    assert 512 <= member.context <= 20_000_000
    assert re.fullmatch(r"[a-z0-9.-]+(:[a-z0-9.-]+)?", member.name)
    for repo in member.repos:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", repo), repo
    SamplingParams(**member.sampling)


@pytest.mark.parametrize("member", SHAPED, ids=lambda m: m.name)
def test_the_shape_adds_up_to_the_parameters(member):
    checkpoint = checkpoint_of(member)
    try:
        family = family_of(checkpoint)
    except UnsupportedModelError:
        assert member.shape["model_type"] not in families()
        pytest.skip("an architecture freehold does not run")
    config = read_config(checkpoint)
    tensors = expected_of(family, config)
    counted = sum(math.prod(t.shape) for t in tensors.values() if t.required)
    declared = member.parameters - member.other_parameters
    assert counted == pytest.approx(declared, rel=0.02)
    assert config.context_length >= member.context


def test_names_lead_to_members():
    assert find("LLAMA3.2") is find("llama3.2:3b") is find("meta-llama/Llama-3.2-3B")
    assert find("bartowski/Llama-3.2-3B-Instruct-GGUF") is find("llama3.2:3b")
    assert find("no-such-model") is None
    with pytest.raises(ModelNotFoundError, match=r"llama3\.2:3c") as error:
        get("llama3.2:3c")
    assert "llama3.2:3b" in (error.value.hint or "")


@MEMBERS
def test_the_publishers_own_terms_are_the_same(member):
    """The publishers' files under `licences/` speak of the same repositories. What they have at
    second hand is left to them."""
    origin = origin_of(member.repo)
    if origin is not None and origin.confidence in ("text", "document"):
        assert set(origin.licences) <= set(member.licence)
