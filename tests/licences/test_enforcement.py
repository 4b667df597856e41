# SPDX-License-Identifier: Apache-2.0
"""The policy file: what it lets through, what it stops, and what an exception leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from freehold import licensing
from freehold.errors import InvalidParameterError, PolicyError
from freehold.licences.policy import CLASSES, read_policy
from freehold.licences.policy_file import override_log
from freehold.licensing import enforce, enforce_on, facts_of

LLAMA = "hf:meta-llama/Llama-3.2-3B-Instruct"
APACHE = "hf:Qwen/Qwen3-8B"
CLAIMED = {"license": "apache-2.0"}


def stopped(name: str, action="load", **given) -> dict:
    """The reason for which a model is stopped."""
    with pytest.raises(PolicyError) as caught:
        enforce(action, facts_of(name, **given))
    assert caught.value.hint
    json.dumps(caught.value.reason)  # for machines
    return caught.value.reason


def test_no_policy_lets_everything_through(monkeypatch) -> None:
    enforce("load", facts_of(LLAMA))
    monkeypatch.setattr(licensing, "facts_of", lambda *a, **k: pytest.fail("looked up for nothing"))
    enforce_on("load", "/nowhere/model.gguf")


@pytest.mark.parametrize("action", ["pull", "load", "serve"])
def test_only_what_the_osi_approved(policy, action) -> None:
    path = policy('allow = ["osi"]')
    enforce(action, facts_of(APACHE))
    reason = stopped(LLAMA, action)
    assert reason["code"] == "licence-not-allowed"
    assert reason["action"] == action
    assert reason["licences"] == ["llama3.2"]
    assert reason["breaches"][0]["rule"] == "allow"
    assert reason["policy"] == str(path)


@pytest.mark.parametrize(
    ("rules", "name", "metadata", "code"),
    [
        ('allow = ["osi", "llama3.2"]', LLAMA, None, None),
        ('deny = ["llama3.2"]', LLAMA, None, "licence-denied"),
        ('allow = ["commercial"]\ndeny = ["llama3.2"]', LLAMA, None, "licence-denied"),
        ('allow = ["no-user-limit"]', LLAMA, None, "licence-not-allowed"),
        ('allow = ["no-user-limit"]', "hf:google/gemma-3-4b-it", None, None),
        ('allow = ["no-remote-restriction"]', "hf:google/gemma-3-4b-it", None,
         "licence-not-allowed"),
        ('allow = ["commercial"]', "hf:mistralai/Codestral-22B-v0.1", None, "licence-not-allowed"),
        # A copy is under the terms of what it copies, whatever its uploader writes.
        ('allow = ["osi"]', "hf:someone/Codestral-22B-v0.1-GGUF", CLAIMED, "licence-not-allowed"),
        # All licences of a stack must pass.
        ('allow = ["mit"]', "hf:deepseek-ai/DeepSeek-R1-Distill-Llama-8B", None,
         "licence-not-allowed"),
        ('allow = ["osi"]', "hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", None, None),
        ('allow = ["osi"]', "hf:someone/unheard-of", None, "licence-unknown"),
        ('allow = ["osi"]\nunknown = "allow"', "hf:someone/unheard-of", None, None),
        ('allow = ["osi"]', "hf:someone/unheard-of", CLAIMED, None),
        ('allow = ["osi"]\nclaims = "block"', "hf:someone/unheard-of", CLAIMED, "claim-only"),
        ('claims = "block"', APACHE, None, None),
        ('allow = ["osi"]', "hf:someone/tuned",
         {**CLAIMED, "base_model": "someone/else"}, "licence-unknown"),
        ('families = ["qwen*"]', APACHE, None, None),
        ('families = ["gemma*"]', APACHE, None, "family-not-allowed"),
        ('families = ["gemma*"]', "hf:someone/unheard-of", CLAIMED, "family-not-allowed"),
        ('deny_families = ["deepseek*"]', "hf:deepseek-ai/DeepSeek-R1", None, "family-denied"),
        ('openness = "weights"', LLAMA, None, None),
        ('openness = "data"', LLAMA, None, "openness-too-low"),
        ('openness = "full"', "hf:allenai/OLMo-2-1124-7B-Instruct", None, None),
        ('openness = "weights"', "hf:someone/unheard-of", CLAIMED, "openness-too-low"),
        ('allow = ["osi"]\nactions = ["serve"]', LLAMA, None, None),
        ("allow = []", APACHE, None, "licence-not-allowed"),
    ],
)  # fmt: skip
def test_rules(policy, rules, name, metadata, code) -> None:
    policy(rules)
    if code is None:
        enforce("load", facts_of(name, metadata=metadata))
    else:
        assert stopped(name, metadata=metadata)["code"] == code


def test_an_exception_is_written_down_before_it_is_made(policy) -> None:
    path = policy('allow = ["osi"]')
    facts = facts_of(LLAMA)
    enforce("load", facts, override="legal agreed,\n ticket 4711")
    enforce("serve", facts, override="the same")
    lines = [json.loads(line) for line in override_log().read_text("utf-8").splitlines()]
    assert [line["action"] for line in lines] == ["load", "serve"]
    assert lines[0]["why"] == "legal agreed, ticket 4711"
    assert lines[0]["model"] == LLAMA
    assert lines[0]["user"]
    assert lines[0]["time"].endswith("Z")
    assert len(lines[0]["policy_sha256"]) == 64
    assert lines[0]["policy"] == str(path)
    assert override_log().stat().st_mode & 0o777 == 0o600
    enforce("load", facts_of(APACHE), override="not needed")
    assert len(override_log().read_text().splitlines()) == 2


@pytest.mark.parametrize("why", ["", "  \n", "x" * 2001])
def test_an_exception_needs_a_reason(policy, why) -> None:
    policy('allow = ["osi"]')
    with pytest.raises(InvalidParameterError):
        enforce("load", facts_of(LLAMA), override=why)


def test_what_cannot_be_written_down_does_not_happen(policy, home) -> None:
    policy('allow = ["osi"]')
    facts = facts_of(LLAMA)
    (home / "data").write_text("in the way")
    with pytest.raises(OSError):
        enforce("load", facts, override="please")


def test_a_house_may_forbid_exceptions(policy) -> None:
    policy('allow = ["osi"]\noverrides = "forbid"')
    with pytest.raises(PolicyError, match="forbids"):
        enforce("load", facts_of(LLAMA), override="please")
    assert not override_log().exists()


@pytest.mark.parametrize(
    "text",
    [
        "allow = [",
        'allow = "osi"',
        'allow = ["ossi"]',
        'alow = ["osi"]',
        "version = 2",
        'openness = "very"',
        'unknown = "perhaps"',
        'actions = ["eat"]',
        "allow = [1]",
        'openness = ["weights"]',
    ],
)
def test_a_policy_that_cannot_be_read_allows_nothing(policy, text) -> None:
    policy(text)
    with pytest.raises(InvalidParameterError, match=r"policy\.toml"):
        enforce("load", facts_of(APACHE))


def test_a_named_policy_must_be_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FREEHOLD_POLICY", str(tmp_path / "absent.toml"))
    with pytest.raises(InvalidParameterError, match="no policy"):
        enforce("load", facts_of(APACHE))
    (tmp_path / "absent.toml").write_text("allow = []")
    with pytest.raises(PolicyError):
        enforce("load", facts_of(APACHE))


def test_a_policy_that_is_a_folder_is_an_error(home: Path) -> None:
    (home / "config" / "freehold" / "policy.toml").mkdir(parents=True)
    with pytest.raises(InvalidParameterError, match="cannot be read"):
        enforce("load", facts_of(APACHE))


def test_every_class_has_members() -> None:
    from freehold.licences.policy import in_class
    from freehold.licences.reader import licences, unknown_licence

    for name in CLASSES:
        inside = [each for each in licences().values() if in_class(name, each)]
        assert 0 < len(inside) < len(licences()), name
    assert not [name for name in CLASSES if in_class(name, unknown_licence())]


def test_the_example_in_the_description_is_a_policy() -> None:
    from freehold.licences import policy as module

    lines = [line[4:] for line in (module.__doc__ or "").splitlines() if line.startswith("    ")]
    assert read_policy("\n".join(lines), "example").openness == "weights"
