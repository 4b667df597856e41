# SPDX-License-Identifier: Apache-2.0
"""How a plan reads to a person; for programs: `_plan_values`.

Knows words and units; every number comes from the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from freehold.cli import console
from freehold.planner.tiers import TIERS

if TYPE_CHECKING:
    from freehold.ops import KVLayerSpec
    from freehold.planner.machine import Machine
    from freehold.planner.plan import Job, Plan, Range
    from freehold.planner.recommend import Choice

CPU_ONLY = "this version of freehold computes on the processor; the cards are planned, not used"


def render(plan: Plan) -> str:
    """A plan for a person."""
    sizes = plan.sizes
    quant = plan.quant or sizes.main_type
    rows = [
        [
            "model",
            f"{plan.model}, {quant}: {console.count(sizes.parameters)} parameters, "
            f"{sizes.num_layers} layers" + _experts(plan),
        ],
        *_machine_rows(plan.machine),
        *_memory_rows(plan),
        ["load", f"{_seconds(plan.load)}, from the system's cache"],
        ["prefill", f"{_rates(plan.prefill)} tok/s for a prompt"],
        ["decode", f"{_rates(plan.decode)} tok/s for one sequence, half its context full"],
        ["", _trust(plan)],
    ]
    if plan.job is not None:
        rows += _job_rows(plan.job)
    if plan.placement is not None:
        rows += _card_rows(plan)
    return console.table(rows)


def _experts(plan: Plan) -> str:
    sizes = plan.sizes
    return f", {sizes.top_k} of {sizes.num_experts} experts a token" if sizes.num_experts else ""


def _machine_rows(machine: Machine) -> list[list[str]]:
    rates = machine.rates
    known = "measured" if rates.measured else "typical, not measured"
    memory = f"{console.size(machine.free)} of {console.size(machine.total)} RAM free"
    speed = (
        f"{console.rate(rates.read / 1e9)} GB/s read, "
        f"{console.rate(rates.int8 / 1e9)} Gop/s int8 ({known})"
    )
    return [["machine", f"{machine.name}: {memory}, {machine.cores} cores"], ["", speed]]


def _memory_rows(plan: Plan) -> list[list[str]]:
    need = plan.need
    parts = (
        ("weights", need.weights, "as they lie in memory"),
        ("cache", need.kv_cache, _cache(plan)),
        ("buffers", need.buffers, "of one step"),
        ("process", need.process, "interpreter, libraries, vocabulary"),
    )
    rows = [[name, f"{console.size(nbytes):>8}  {text}"] for name, nbytes, text in parts]
    verdict = "fits" if plan.fits else "does not fit"
    rows.append(
        [
            "together",
            f"{console.size(need.total):>8}  {verdict} the {console.size(plan.budget)} that may be "
            "taken of the free memory",
        ]
    )
    if plan.context_is_default:
        longest = f", up to {plan.sizes.context_length:,}"
        rows.append(["", f"for a context of {plan.context:,}: --context says otherwise{longest}"])
    if not plan.fits:
        missing = console.size(need.total - plan.budget)
        rows.append(["missing", f"{missing:>8}  {'; '.join(plan.remedies) or _no_remedy(plan)}"])
        rows.append(["", "--ignore-memory of every command that loads it does so all the same"])
    return rows


def _no_remedy(plan: Plan) -> str:
    smaller = " and no smaller quantisation" if plan.quant else ""
    return f"no shorter context{smaller} helps"


def _cache(plan: Plan) -> str:
    kinds = ", ".join(_layer_kind(spec, count) for spec, count in plan.sizes.caches)
    return f"{plan.parallel} x {plan.context:,} tokens in {plan.kv_dtype}: {kinds}"


def _layer_kind(spec: KVLayerSpec, count: int) -> str:
    layers = f"{count} layer" + "s" * (count != 1)
    if spec.rows:
        every = f"an entry for {spec.stride} tokens" if spec.stride > 1 else "rows"
        reach = f" of the last {spec.window:,}" if spec.window else ""
        return f"{layers} keep {every}{reach}"
    if spec.window:
        return f"{layers} keep the last {spec.window:,}"
    if not spec.value_dim:
        return f"{layers} keep one vector of {spec.key_dim} a token"
    return f"{layers} keep all"


def _trust(plan: Plan) -> str:
    if plan.runs:
        runs = f"{plan.runs} run" + "s" * (plan.runs != 1)
        return f"calibrated by {runs} on this machine"
    if plan.machine.name in {each.name for each in TIERS.values()}:
        return "estimates for a kind of machine, not measured on any"
    return "not calibrated yet: runs on this machine, with little else going on, make it better"


def _job_rows(job: Job) -> list[list[str]]:
    each = f"{job.tokens_in:,} tokens in, {job.tokens_out:,} out, {job.streams} at once"
    rows = [["documents", f"{_rates(job.per_hour)} an hour ({each})"]]
    if job.seconds is not None and job.done_by is not None:
        early, late = job.done_by
        rows.append(
            [
                "",
                f"{job.documents:,} take {_duration(job.seconds.low)} to "
                f"{_duration(job.seconds.high)}: done between {_clock(early)} and {_clock(late)}",
            ]
        )
    if job.possible is not None:
        verdict = ""
        if job.on_time is not None and job.documents is not None:
            verdict = "in time" if job.on_time else "not surely in time"
            verdict += "; "
        rows.append(["", f"{verdict}{job.possible:,} are done by then at the low rate"])
    return rows


def _card_rows(plan: Plan) -> list[list[str]]:
    placement = plan.placement
    assert placement is not None
    rows = [["cards", CPU_ONLY]]
    for part in placement.parts:
        layers = f"{part.layers} of {plan.sizes.num_layers} layers"
        rows.append(["", f"{part.device}: {layers}, {console.size(part.nbytes)}"])
    if placement.decode is None:
        rows.append(["", "how fast is not told: the bandwidth of a card is not known"])
    else:
        low, middle, high = placement.decode
        rate = f"{console.rate(middle)} ({console.rate(low)} to {console.rate(high)})"
        rows.append(["", f"an engine that used them would decode about {rate} tok/s"])
    return rows


def _rates(found: Range) -> str:
    return f"{console.rate(found.middle)} ({console.rate(found.low)} to {console.rate(found.high)})"


def _seconds(found: Range) -> str:
    return (
        f"{console.rate(found.middle)} s ({console.rate(found.low)} to {console.rate(found.high)})"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 86400:,.0f} days"


def _clock(time: datetime) -> str:
    same_day = time.date() == datetime.now(time.tzinfo).date()
    return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M")


def render_choices(machine: Machine, choices: Sequence[Choice]) -> str:
    """Recommended models for a person."""
    head = console.table(_machine_rows(machine))
    if not choices:
        return f"{head}\n\nno model of the catalogue fits: free some memory"
    rows = [["model", "quant", "context", "memory", "tok/s", "parameters", "released"]]
    for choice in choices:
        fit, member = choice.fit, choice.member
        active = ""
        if member.active_parameters < member.parameters:
            active = f", {console.count(member.active_parameters)} active"
        rows.append(
            [
                member.name,
                fit.quant,
                f"{fit.context:,}",
                console.size(fit.need.total),
                console.rate(fit.decode_tokens_per_second),
                f"{console.count(member.parameters)}{active}",
                f"{member.released:%Y-%m}",
            ]
        )
    table = console.table(rows, right=(2, 3, 4))
    first = choices[0]
    follow = (
        f"freehold plan {first.member.name}    what it needs, and how fast it is\n"
        f"freehold pull {first.member.name}    fetch it"
    )
    return f"{head}\n\n{table}\n\n{follow}"
