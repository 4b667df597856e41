# SPDX-License-Identifier: Apache-2.0
"""What follows from sizes and a machine: work, speeds, jobs, splits, recommendations, deadlines."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest

from freehold.catalogue.catalogue import find
from freehold.errors import InvalidParameterError
from freehold.planner.calibration import Calibration, Record
from freehold.planner.deadline import parse_deadline
from freehold.planner.fit import best_fit, fits
from freehold.planner.machine import Gpu, Machine, Rates
from freehold.planner.member_sizes import known_sizes
from freehold.planner.placement import place
from freehold.planner.plan import Question, make_plan
from freehold.planner.recommend import recommend
from freehold.planner.speed import decode_seconds, decode_work, kind_of, prefill_seconds

GIB = 1 << 30
BOX = Machine("box", 16 * GIB, 12 * GIB, 4, Rates(30e9, 400e9, 3e9))
NOW = datetime(2026, 11, 30, 22, 15, tzinfo=UTC)


def sizes_of(name, quant="Q4_K_M"):
    member = find(name)
    assert member is not None
    return known_sizes(member.shape, quant, name)


def test_a_token_reads_every_weight_once_and_the_table_by_the_row():
    sizes = sizes_of("llama3.1:8b", "Q8_0")
    work = decode_work(sizes, 1)
    lookup = sum(m.resident_bytes for m in sizes.matrices if m.use == "lookup")
    matrices = sum(m.resident_bytes for m in sizes.matrices)
    cache = 32 * 2 * 8 * 128 * 2
    assert work.bytes_per_token == matrices - lookup + cache
    # 8.03 billion weights less the table, two operations each.
    assert work.operations_per_token == pytest.approx(2 * (8.03e9 - 128256 * 4096), rel=0.01)


def test_of_experts_a_token_reads_those_it_chose_and_many_tokens_nearly_all():
    sizes = sizes_of("qwen3:30b")
    experts = sum(m.resident_bytes for m in sizes.matrices if m.use == "expert")
    rest = decode_work(sizes, 1).bytes_per_token - experts * 8 / 128
    assert rest < 0.2 * experts
    many = decode_work(sizes, 1, streams=64).bytes_per_token * 64
    assert many > 0.95 * experts


def test_a_window_bounds_what_a_long_context_costs():
    windows, full = sizes_of("gemma3:1b"), sizes_of("llama3.2:1b")

    def growth(sizes):
        near, far = (decode_work(sizes, n).bytes_per_token for n in (512, 16_384))
        return (far - near) / (15_872 * sum(count for _, count in sizes.caches))

    assert growth(windows) < 0.25 * growth(replace(windows, caches=full.caches))


def test_more_bits_are_slower_and_prompts_are_faster_than_answers():
    four, eight = (decode_seconds(sizes_of("llama3.2:3b", q), BOX.rates, 512)
                   for q in ("Q4_K_M", "Q8_0"))  # fmt: skip
    assert 1.4 < eight / four < 2.0
    assert prefill_seconds(sizes_of("llama3.2:3b"), BOX.rates, 512) / 512 < four


def test_what_was_measured_corrects_the_plan():
    sizes = sizes_of("llama3.2:3b")
    blind = make_plan("x", None, sizes, BOX, Question(), now=NOW)
    known = Calibration([Record("decode", kind_of(sizes), 1.0, 2.0)] * 3)
    taught = make_plan("x", None, sizes, BOX, Question(), known, now=NOW)
    assert taught.decode.middle == pytest.approx(blind.decode.middle / 2)
    assert taught.runs == 3
    assert blind.decode.low < blind.decode.middle < blind.decode.high
    assert taught.decode.high / taught.decode.low < blind.decode.high / blind.decode.low
    assert taught.prefill == blind.prefill


def test_documents_take_their_prompts_and_a_share_of_every_step():
    sizes = sizes_of("llama3.2:1b")
    asked = Question(documents=1000, tokens_in=2000, tokens_out=100, parallel=4)
    job = make_plan("x", None, sizes, BOX, asked, now=NOW).job
    assert job is not None
    reading = prefill_seconds(sizes, BOX.rates, 2000)
    writing = 100 * decode_seconds(sizes, BOX.rates, 2050, streams=4) / 4
    assert job.per_hour.middle == pytest.approx(3600 / (reading + writing))
    assert job.seconds is not None
    assert job.seconds.middle == pytest.approx(1000 * (reading + writing))
    assert job.on_time is None


@pytest.mark.parametrize(("documents", "on_time"), [(5, True), (1_000_000, False)])
def test_in_time_means_by_the_slow_end_of_the_range(documents, on_time):
    by = NOW + timedelta(hours=8)
    asked = Question(documents=documents, by=by)
    job = make_plan("x", None, sizes_of("llama3.2:1b"), BOX, asked, now=NOW).job
    assert job is not None
    assert job.on_time is on_time
    assert job.possible is not None
    assert (job.possible >= documents) is on_time


def test_absurd_numbers_of_documents_end_in_a_date_all_the_same():
    asked = Question(documents=10**12)
    job = make_plan("x", None, sizes_of("llama3.3:70b"), BOX, asked, now=NOW).job
    assert job is not None
    assert job.done_by is not None


def test_what_cannot_be_asked_is_refused_with_the_numbers():
    sizes = sizes_of("llama3.2:1b")
    with pytest.raises(InvalidParameterError, match="131,072"):
        make_plan("x", None, sizes, BOX, Question(context=200_000))
    with pytest.raises(InvalidParameterError, match="2,000"):
        make_plan("x", None, sizes, BOX, Question(context=1024, tokens_in=2000))


def test_what_does_not_fit_says_what_would():
    plan = make_plan("x", None, sizes_of("llama3.1:8b"), BOX, Question(context=65536))
    assert not plan.fits
    longest = next(int(r.split()[1]) for r in plan.remedies if r.startswith("--context"))
    assert make_plan("x", None, plan.sizes, BOX, Question(context=longest)).fits
    assert not make_plan("x", None, plan.sizes, BOX, Question(context=longest + 16)).fits
    assert "--kv-type q8_0 fits" in plan.remedies
    assert make_plan("x", None, plan.sizes, BOX, Question(context=65536, kv_dtype="q8_0")).fits


def test_layers_go_to_cards_until_they_are_full():
    cards = (Gpu("a", 8 * GIB, 7 * GIB, 300e9), Gpu("b", 8 * GIB, 7 * GIB, 300e9))
    for name, everything in (("llama3.2:1b", True), ("llama3.1:8b", True), ("llama3.3:70b", False)):
        sizes = sizes_of(name)
        plan = make_plan(name, None, sizes, replace(BOX, gpus=cards), Question())
        placement = plan.placement
        assert placement is not None
        assert sum(part.layers for part in placement.parts) == sizes.num_layers
        for part, card in zip(placement.parts, cards, strict=False):
            assert part.nbytes < card.free
        whole = sum(part.nbytes for part in placement.parts)
        assert whole == pytest.approx(plan.need.total, rel=0.001)
        assert (placement.layers_on_cards == sizes.num_layers) is everything
        assert placement.fits is everything
        assert placement.decode is not None
        assert (placement.decode[1] > plan.decode.high) is everything


def test_a_card_of_unknown_speed_is_not_guessed_at():
    plan = make_plan("x", None, sizes_of("llama3.2:1b"),
                     replace(BOX, gpus=(Gpu("a", 8 * GIB, 7 * GIB),)), Question())  # fmt: skip
    assert plan.placement is not None
    assert plan.placement.decode is None


def test_no_cards_no_split():
    sizes = sizes_of("llama3.2:1b")
    plan = make_plan("x", None, sizes, BOX, Question())
    assert plan.placement is None
    alone = place(sizes, plan.need, BOX)
    assert [part.device for part in alone.parts] == ["processor"]


def member(name, **changes):
    found = find(name)
    assert found is not None
    return SimpleNamespace(
        **{
            "name": name, "family": found.family, "shape": found.shape,
            "parameters": found.parameters, "active_parameters": found.active_parameters,
            "released": found.released,
            "tasks": found.tasks, **changes,
        }
    )  # fmt: skip


def test_the_largest_that_fits_and_is_quick_is_recommended():
    small, large = member("llama3.2:1b"), member("llama3.1:8b", released=date(2024, 9, 25))
    fast = replace(BOX, rates=Rates(200e9, 3e12))
    assert [c.member.name for c in recommend([small, large], fast)] == [large.name]
    slow = replace(BOX, rates=Rates(20e9, 4e11))
    assert [c.member.name for c in recommend([small, large], slow)] == [small.name]
    tight = replace(fast, free=4 * GIB)
    assert [c.member.name for c in recommend([small, large], tight)] == [small.name]
    assert recommend([small], replace(BOX, free=GIB // 4)) == []


def test_only_what_is_good_for_the_task_is_recommended():
    chats, guards = member("llama3.2:1b"), member("llama3.2:3b", tasks=("chat", "moderation"))
    assert [c.member.name for c in recommend([chats, guards], BOX)] == ["llama3.2:1b"]
    assert recommend([chats], BOX, task="infill") == []


def test_one_of_each_family_is_recommended():
    same = [member("qwen3:8b"), member("qwen3:4b"), member("llama3.2:3b")]
    fast = replace(BOX, rates=Rates(200e9, 3e12))
    assert [c.member.name for c in recommend(same, fast)] == ["qwen3:8b", "llama3.2:3b"]


def test_a_member_without_sizes_is_not_judged():
    assert fits(SimpleNamespace(name="x", shape={}), BOX, "Q8_0") is None
    strange = SimpleNamespace(name="x", shape={"model_type": "mamba"})
    assert fits(strange, BOX, "Q8_0") is None
    assert best_fit(strange, BOX) is None
    assert fits(find("llama3.2:1b"), BOX, "Q8_0", 10**6) is None


def test_the_best_quantisation_that_fits_is_taken():
    found = find("llama3.1:8b")
    assert best_fit(found, BOX).quant == "Q8_0"
    assert best_fit(found, replace(BOX, free=13 * GIB // 2)).quant == "Q4_K_M"
    none = best_fit(found, replace(BOX, free=GIB))
    assert (none.quant, none.fits) == ("Q2_K", False)
    assert best_fit(find("gpt-oss:20b"), replace(BOX, free=60 * GIB)).quant == "MXFP4_MOE"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("06:00", datetime(2026, 12, 1, 6, 0, tzinfo=UTC)),
        ("23:30", datetime(2026, 11, 30, 23, 30, tzinfo=UTC)),
        ("22:15", datetime(2026, 12, 1, 22, 15, tzinfo=UTC)),  # now is not to come
        ("6:05", datetime(2026, 12, 1, 6, 5, tzinfo=UTC)),
        ("2026-12-24T06:00", datetime(2026, 12, 24, 6, 0, tzinfo=UTC)),
        ("2026-12-24 07:00+01:00", datetime(2026, 12, 24, 6, 0, tzinfo=UTC)),
    ],
)
def test_deadlines_are_the_next_such_time(text, expected):
    assert parse_deadline(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "24:00", "6", "tomorrow", "2020-01-01", "12:60", "٠٦:٠٠"])
def test_other_words_are_no_deadlines(text):
    with pytest.raises(InvalidParameterError):
        parse_deadline(text, NOW)
