# SPDX-License-Identifier: Apache-2.0
"""Models and situations, with the answers that the licences' texts give.

One line: a model, what is done with it, the outcome, and findings that must be among the answers,
written ``kind:question`` or ``kind:question=exact words``; with a leading ``-`` they must not be.
"""

from __future__ import annotations

from typing import Any

import pytest

from freehold.licences.reasoning import WARNING, effective, judge
from freehold.licences.situation import Situation
from freehold.licensing import facts_of

BLOCKED, OPEN, FOUND = "blocked", "open questions", "no blocking clause found"
M, B = 10**6, 10**9
FIRM = {"commercial": True, "mau": 50_000, "monthly_revenue": 3 * M, "annual_revenue": 36 * M}
GIANT = {"commercial": True, "mau": 2 * B, "monthly_revenue": 5 * B, "annual_revenue": 60 * B}
HOBBY = {"commercial": False, "mau": 0, "monthly_revenue": 0, "annual_revenue": 0}

L31, L32 = "hf:meta-llama/Llama-3.1-8B-Instruct", "hf:meta-llama/Llama-3.2-3B-Instruct"
L32V, L33 = "hf:meta-llama/Llama-3.2-11B-Vision-Instruct", "hf:meta-llama/Llama-3.3-70B-Instruct"
L4, L3, L2 = (
    "hf:meta-llama/Llama-4-Scout-17B-16E-Instruct", "hf:meta-llama/Meta-Llama-3-8B-Instruct",
    "hf:meta-llama/Llama-2-7b-chat-hf",
)  # fmt: skip
GEMMA3, GEMMA4 = "hf:google/gemma-3-4b-it", "hf:google/gemma-4-12b-it"
DEVSTRAL2 = "hf:mistralai/Devstral-2-123B-Instruct-2512"
DEVSTRAL_SMALL = "hf:mistralai/Devstral-Small-2-24B-Instruct-2512"
CODESTRAL = "hf:mistralai/Codestral-22B-v0.1"
LARGE2 = "hf:mistralai/Mistral-Large-Instruct-2411"
R1, V3, V3_0324 = "hf:deepseek-ai/DeepSeek-R1", "hf:deepseek-ai/DeepSeek-V3", \
    "hf:deepseek-ai/DeepSeek-V3-0324"  # fmt: skip
R1_LLAMA8 = "hf:deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
R1_LLAMA70 = "hf:deepseek-ai/DeepSeek-R1-Distill-Llama-70B"
R1_QWEN = "hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
QWEN3B, QWEN7B, QWEN72B = (
    "hf:Qwen/Qwen2.5-3B-Instruct", "hf:Qwen/Qwen2.5-7B-Instruct", "hf:Qwen/Qwen2.5-72B-Instruct",
)  # fmt: skip
FLASH = "hf:Qwen/Qwen3.8-Flash-Next"

NOTICE = "Llama {0} is licensed under the Llama {0} Community License, Copyright © Meta " \
    "Platforms, Inc. All Rights Reserved."  # fmt: skip
NOTICE31, NOTICE33 = NOTICE.format("3.1"), NOTICE.format("3.3")
GEMMA_NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)

TABLE: list[tuple[str, dict[str, Any], str, list[str]]] = [
    # Apache and MIT
    (QWEN7B, GIANT, FOUND, []),
    (QWEN7B, {**FIRM, "distribute": True}, FOUND,
     ["duty:licence_copy", "duty:notice", "duty:mark_changes"]),
    (QWEN7B, {**FIRM, "train_on_outputs": True, "distribute": True}, FOUND,
     ["-duty:train_on_outputs", "-duty:name_rule"]),
    (QWEN7B, {"host": True}, FOUND, ["-duty:licence_copy"]),
    (R1, {**GIANT, "host": True, "train_on_outputs": True}, FOUND, ["-duty:train_on_outputs"]),
    (R1, {**FIRM, "distribute": True}, FOUND, ["duty:licence_copy", "-duty:mark_changes"]),
    (GEMMA4, {**GIANT, "region": "DE", "host": True}, FOUND, ["-duty:use_restrictions"]),
    ("hf:allenai/OLMo-2-1124-7B-Instruct", {**GIANT, "purposes": ("military",)}, FOUND, []),
    # Llama: users, at one date
    (L31, {}, OPEN, ["unknown:user_limit"]),
    (L31, FIRM, FOUND, ["duty:use_restrictions", "-duty:display_rule"]),
    (L31, {"mau": 700 * M}, FOUND, []),
    (L31, {"mau": 700 * M + 1}, BLOCKED, ["blocker:user_limit"]),
    (L31, {**GIANT, "end_user": True}, FOUND, ["-blocker:user_limit"]),
    (L2, GIANT, BLOCKED, ["blocker:user_limit"]),
    (L33, GIANT, BLOCKED, ["blocker:user_limit"]),
    # Llama: passing on
    (L31, {**FIRM, "distribute": True}, FOUND,
     ["duty:licence_copy", "duty:display_rule=Built with Llama", f"duty:notice={NOTICE31}",
      "-duty:mark_changes"]),
    (L31, {**FIRM, "host": True}, FOUND, ["duty:display_rule=Built with Llama", "-duty:notice"]),
    (L3, {**FIRM, "distribute": True}, FOUND, ["duty:display_rule=Built with Meta Llama 3"]),
    (L2, {**FIRM, "distribute": True}, FOUND, ["duty:notice", "-duty:display_rule"]),
    # Llama: answers as training data
    (L2, {**FIRM, "train_on_outputs": True}, BLOCKED, ["blocker:train_on_outputs"]),
    (L3, {**FIRM, "train_on_outputs": True}, BLOCKED, ["blocker:train_on_outputs"]),
    (L31, {**FIRM, "train_on_outputs": True}, FOUND, ["duty:name_rule=Llama"]),
    (L32, {**FIRM, "modify": True, "distribute": True}, FOUND, ["duty:name_rule=Llama"]),
    (L3, {**FIRM, "modify": True, "distribute": True}, FOUND, ["duty:name_rule=Llama 3"]),
    (L31, {**FIRM, "modify": True, "derived_name": "Acme-7B"}, BLOCKED, ["blocker:name_rule"]),
    (L31, {**FIRM, "modify": True, "derived_name": "Llama-Acme-7B"}, FOUND,
     ["-blocker:name_rule"]),
    # Llama: the European Union
    (L4, {**FIRM, "region": "DE"}, BLOCKED, ["blocker:territory_excluded"]),
    (L4, {**FIRM, "region": "EU"}, BLOCKED, ["blocker:territory_excluded"]),
    (L4, {**FIRM, "region": "US"}, FOUND, ["-blocker:territory_excluded"]),
    (L4, {**FIRM, "region": "GB"}, FOUND, ["-blocker:territory_excluded"]),
    (L4, {**HOBBY, "region": "FR"}, BLOCKED, ["blocker:territory_excluded"]),
    (L4, {**FIRM, "region": "DE", "end_user": True}, FOUND, ["-blocker:territory_excluded"]),
    (L4, FIRM, OPEN, ["unknown:territory_excluded"]),
    (L32V, {**FIRM, "region": "IT"}, BLOCKED, ["blocker:territory_excluded"]),
    (L32, {**FIRM, "region": "IT"}, FOUND, ["-blocker:territory_excluded"]),
    (L31, {**FIRM, "region": "EU"}, FOUND, ["-blocker:territory_excluded"]),
    (L33, {**FIRM, "region": "EU"}, FOUND, ["-blocker:territory_excluded"]),
    (L31, {**FIRM, "purposes": ("military",)}, BLOCKED, ["blocker:use_restrictions"]),
    # Gemma
    (GEMMA3, GIANT, FOUND, ["-blocker:user_limit", "remark:remote_restriction"]),
    (GEMMA3, {**FIRM, "host": True}, FOUND,
     ["duty:pass_on_terms", "duty:licence_copy", "duty:mark_changes", "-duty:notice"]),
    (GEMMA3, {**FIRM, "distribute": True}, FOUND, [f"duty:notice={GEMMA_NOTICE}"]),
    (GEMMA3, {**FIRM, "train_on_outputs": True}, FOUND, ["duty:train_on_outputs"]),
    (GEMMA3, {**FIRM, "region": "EU"}, FOUND, []),
    (GEMMA3, {**FIRM, "purposes": ("malware",)}, BLOCKED, ["blocker:use_restrictions"]),
    # Mistral
    (CODESTRAL, {"commercial": True}, BLOCKED, ["blocker:commercial_use"]),
    (CODESTRAL, HOBBY, FOUND, ["duty:commercial_use"]),
    (CODESTRAL, {}, OPEN, ["unknown:commercial_use"]),
    (CODESTRAL, {"commercial": True, "host": True}, BLOCKED, ["blocker:hosted_service"]),
    ("hf:someone/Codestral-22B-v0.1-GGUF", FIRM, BLOCKED, ["blocker:commercial_use"]),
    (LARGE2, FIRM, BLOCKED, ["blocker:commercial_use"]),
    (LARGE2, {**HOBBY, "train_on_outputs": True}, FOUND, ["duty:train_on_outputs"]),
    (DEVSTRAL2, {"commercial": True, "monthly_revenue": 20 * M}, FOUND, []),
    (DEVSTRAL2, {"commercial": True, "monthly_revenue": 20 * M + 1}, BLOCKED,
     ["blocker:revenue_limit"]),
    (DEVSTRAL2, {"commercial": True, "annual_revenue": 19 * M}, FOUND, []),
    (DEVSTRAL2, {"commercial": True, "annual_revenue": 200 * M}, OPEN, ["unknown:revenue_limit"]),
    (DEVSTRAL2, {"commercial": False, "monthly_revenue": 30 * M}, BLOCKED,
     ["blocker:revenue_limit"]),
    (DEVSTRAL2, {"commercial": True}, OPEN, ["unknown:revenue_limit"]),
    (DEVSTRAL_SMALL, GIANT, FOUND, []),
    ("hf:mistralai/Mistral-Medium-3.5-128B", GIANT, BLOCKED, ["blocker:revenue_limit"]),
    ("hf:mistralai/Mistral-7B-Instruct-v0.3", GIANT, FOUND, []),
    # DeepSeek
    (V3, {**FIRM, "host": True}, FOUND, ["duty:pass_on_terms", "duty:licence_copy"]),
    (V3, {**FIRM, "purposes": ("military",)}, BLOCKED, ["blocker:use_restrictions"]),
    (V3, {**FIRM, "train_on_outputs": True}, FOUND, ["duty:train_on_outputs"]),
    (V3_0324, {**FIRM, "purposes": ("military",), "train_on_outputs": True}, FOUND,
     ["-duty:train_on_outputs"]),
    # stacked
    (R1_LLAMA8, GIANT, BLOCKED, ["blocker:user_limit"]),
    (R1_LLAMA8, {**FIRM, "distribute": True}, FOUND,
     ["duty:display_rule=Built with Llama", f"duty:notice={NOTICE31}", "duty:licence_copy"]),
    (R1_LLAMA70, {**FIRM, "distribute": True}, FOUND, [f"duty:notice={NOTICE33}"]),
    (R1_LLAMA8, {**FIRM, "train_on_outputs": True}, FOUND, ["duty:name_rule=Llama"]),
    (R1_QWEN, {**GIANT, "distribute": True}, FOUND,
     ["duty:mark_changes", "-duty:display_rule", "-blocker:user_limit"]),
    # Qwen
    (QWEN3B, FIRM, BLOCKED, ["blocker:commercial_use"]),
    (QWEN3B, {}, OPEN, ["unknown:commercial_use"]),
    (QWEN72B, {"commercial": True, "mau": 100 * M}, FOUND, []),
    (QWEN72B, {"commercial": True, "mau": 100 * M + 1}, BLOCKED, ["blocker:user_limit"]),
    (QWEN72B, {"commercial": False, "mau": 200 * M}, FOUND, ["-blocker:user_limit"]),
    (QWEN72B, {**FIRM, "train_on_outputs": True}, FOUND,
     ["duty:train_on_outputs=Built with Qwen"]),
    (QWEN72B, {**FIRM, "distribute": True}, FOUND, ["duty:notice", "-duty:display_rule"]),
    ("hf:Qwen/Qwen2-72B-Instruct", {**FIRM, "train_on_outputs": True}, BLOCKED,
     ["blocker:train_on_outputs"]),
    (FLASH, {**FIRM, "host": True}, BLOCKED, ["blocker:hosted_service"]),
    (FLASH, {**GIANT}, OPEN, ["duty:user_limit=the model's name"]),
    # known from hearsay only, or not at all
    ("hf:LiquidAI/LFM2-1.2B", FIRM, BLOCKED, ["blocker:revenue_limit"]),
    ("hf:LiquidAI/LFM2-1.2B", {"commercial": True, "annual_revenue": 10 * M - 1}, FOUND,
     []),
    ("hf:LiquidAI/LFM2-1.2B", {"commercial": True, "annual_revenue": 10 * M}, BLOCKED,
     ["blocker:revenue_limit"]),
    ("hf:google/medgemma-4b-it", {**FIRM, "host": True}, FOUND,
     ["duty:pass_on_terms", "remark:remote_restriction"]),
    ("hf:MiniMaxAI/MiniMax-H3", {**FIRM, "region": "US"}, BLOCKED, ["blocker:territory_excluded"]),
    ("hf:moonshotai/Kimi-K2-Instruct", GIANT, FOUND, ["duty:user_limit=Kimi K2"]),
    ("hf:moonshotai/Kimi-K3", FIRM, OPEN, ["unknown:commercial_use"]),
    ("hf:someone/never-heard-of", HOBBY, OPEN, ["unknown:licence"]),
    ("hf:meta-models/Muse-Glimmer-30B", FIRM, OPEN, ["duty:use_restrictions"]),
]  # fmt: skip


def label(row: tuple[str, dict[str, Any], str, list[str]]) -> str:
    return f"{row[0].rpartition('/')[2]}-{TABLE.index(row)}"


@pytest.mark.parametrize(("model", "given", "status", "wanted"), TABLE, ids=map(label, TABLE))
def test_models_in_situations(model, given, status, wanted) -> None:
    facts = facts_of(model)
    verdict = judge(facts.licences, Situation(**given), multimodal=facts.multimodal)
    found = {f"{each.kind}:{each.code}" for each in verdict.findings}
    found |= {f"{each.kind}:{each.code}={each.words}" for each in verdict.findings}
    assert verdict.status == status, sorted(found)
    for each in wanted:
        assert (each.removeprefix("-") in found) is not each.startswith("-"), (each, found)
    assert "allowed" not in verdict.sentence
    for each in verdict.findings:
        assert each.where or each.kind == "unknown"


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(TABLE) >= 60


def test_the_most_restrictive_answer_of_a_stack_wins() -> None:
    stack = effective(facts_of(R1_LLAMA8).licences)
    assert {stack[q][0].id for q in ("user_limit", "name_rule", "indemnity")} == {"llama3.1"}
    assert stack["osi_approved"][1].value == "no"
    assert stack["patent_grant"][0].id == "llama3.1"  # no, which is more than MIT's silence
    with_unknown = effective(["apache-2.0", "unknown"])
    assert {answer.value for _, answer in with_unknown.values()} <= {"unknown", "yes", "no"}
    assert with_unknown["commercial_use"][1].value == "unknown"
    assert with_unknown["licence_copy"][0].id == "apache-2.0"


def test_the_verdict_names_the_texts_and_their_dates() -> None:
    verdict = judge(facts_of(R1_LLAMA8).licences, Situation(**FIRM))
    assert "Llama 3.1 Community License Agreement of 2024-07-23" in verdict.sentence
    assert WARNING == "Always read the licence before deploying in a commercial product."


@pytest.mark.parametrize(("multimodal", "status"), [(True, BLOCKED), (False, FOUND), (None, OPEN)])
def test_a_clause_on_multimodal_models_waits_for_the_answer(multimodal, status) -> None:
    situation = Situation(**FIRM, region="DE")
    assert judge(["llama3.2"], situation, multimodal=multimodal).status == status


@pytest.mark.parametrize("region", ["Europe", "E", "", "DEU", "1A"])
def test_regions_are_codes(region) -> None:
    from freehold.errors import InvalidParameterError

    with pytest.raises(InvalidParameterError, match="region"):
        Situation(region=region)


def test_nothing_negative_is_counted() -> None:
    from freehold.errors import InvalidParameterError

    with pytest.raises(InvalidParameterError, match="mau"):
        Situation(mau=-1)
