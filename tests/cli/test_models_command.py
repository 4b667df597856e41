# SPDX-License-Identifier: Apache-2.0
"""`freehold models` as a person and as a program use it."""

from __future__ import annotations

import json

import pytest

from freehold.catalogue.catalogue import get
from freehold.cli import main
from freehold.planner.fit import fits
from freehold.planner.tiers import TIERS


@pytest.fixture
def models(capsys):
    def run(*args: str) -> tuple[int, str, str]:
        code = main.run(["models", *args])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def listed(out: str) -> list[str]:
    return [each["name"] for each in json.loads(out)]


def test_filters_together(models):
    code, out, _ = models("--licence", "osi", "--task", "code", "--min-context", "200000", "--json")
    assert code == 0
    assert "qwen3-coder:30b" in listed(out)
    assert "codestral:22b" not in listed(out)


def test_one_model_in_detail_with_its_sources(models):
    code, out, err = models("deepseek-r1:8b-llama")
    assert code == 0, err
    member = get("deepseek-r1:8b-llama")
    assert "mit + llama3.1" in out
    assert "Always read the licence" in out
    for url in member.sources:
        assert url in out.replace("\n", "").replace(" ", "")


def test_a_repository_is_a_name_too(models):
    _, out, _ = models("meta-llama/Llama-3.2-3B", "--json")
    assert json.loads(out)["name"] == "llama3.2:3b"


def test_a_short_name_lists_all_sizes(models):
    _, out, _ = models("llama3.2", "--json")
    assert {"llama3.2:1b", "llama3.2:3b"} <= set(listed(out))


def test_words_that_mean_one_model_show_it(models):
    _, out, _ = models("llama", "3.2", "3b")
    assert out.startswith("Llama 3.2 3B Instruct")


@pytest.mark.parametrize("tier", sorted(TIERS))
def test_what_is_listed_fits_and_the_best_quantisation_is_named(models, tier):
    code, out, err = models("--fits", tier, "--family", "qwen", "--json")
    assert code == 0, err
    machine = TIERS[tier]
    rows = json.loads(out)
    assert rows
    for row in rows[::3]:
        fit = fits(get(row["name"]), machine, row["fit"]["quant"])
        assert fit is not None
        assert fit.fits
        assert fit.need.total == row["fit"]["bytes"]["total"] <= row["fit"]["budget"]
    left_out = {m for m in ("qwen3:0.6b", "qwen3:235b") if m not in {r["name"] for r in rows}}
    for name in left_out:
        small = fits(get(name), machine, "Q2_K")
        assert small is None or not small.fits


def test_a_longer_context_fits_fewer(models):
    _, short, _ = models("--fits", "8gb", "--json")
    _, long, _ = models("--fits", "8gb", "--min-context", "100000", "--json")
    assert set(listed(long)) < set(listed(short))
    assert all(row["fit"]["context"] == 100_000 for row in json.loads(long))


def test_a_terminal_is_shown_the_best_and_told_of_the_rest(models):
    _, out, err = models("--fits", "16gb", "--limit", "3")
    assert len(out.strip().splitlines()) < 15
    assert "more: --limit 0 shows all" in err
    assert "estimate" in err


def test_what_nobody_has_read_is_left_out_and_told(models):
    _, out, err = models("falcon3", "--licence", "osi", "--json")
    assert json.loads(out) == []
    assert "falcon3:7b" in err


def test_nothing_found_is_a_sentence(models):
    code, out, err = models("no-such-model-anywhere")
    assert (code, out) == (2, "")
    assert "no model of the catalogue" in err
    assert "hint:" in err


@pytest.mark.parametrize("args", [("--task", "cook"), ("--family", "lama")])
def test_mistakes_name_what_there_is(models, args):
    code, _, err = models(*args)
    assert code == 2
    assert "one of" in err
