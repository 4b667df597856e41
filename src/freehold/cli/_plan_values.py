# SPDX-License-Identifier: Apache-2.0
"""A plan as plain values, for programs. Every number comes from the plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from freehold.cli._plan_text import CPU_ONLY

if TYPE_CHECKING:
    from freehold.planner.machine import Machine
    from freehold.planner.plan import Job, Plan
    from freehold.planner.recommend import Choice


def as_dict(plan: Plan) -> dict[str, Any]:
    """A plan as plain values. Times are seconds, rates tokens per second, sizes bytes."""
    sizes, job, placement = plan.sizes, plan.job, plan.placement
    return {
        "model": plan.model,
        "quant": plan.quant or sizes.main_type,
        "architecture": sizes.architecture,
        "parameters": sizes.parameters,
        "fits": plan.fits,
        "memory": plan.need.as_dict(),
        "budget": plan.budget,
        "context": plan.context,
        "longest_context": sizes.context_length,
        "parallel": plan.parallel,
        "kv_dtype": plan.kv_dtype,
        "cache_layers": [
            {
                "layers": count, "heads": s.num_kv_heads, "key_dim": s.key_dim,
                "value_dim": s.value_dim, "window": s.window, "stride": s.stride,
            }
            for s, count in sizes.caches
        ],
        "load_seconds": plan.load.as_dict(),
        "prefill": plan.prefill.as_dict(),
        "decode": plan.decode.as_dict(),
        "calibrated_by_runs": plan.runs,
        "remedies": list(plan.remedies),
        "machine": machine_as_dict(plan.machine),
        "job": None if job is None else _job_as_dict(job),
        "cards": None if placement is None else {
            "used": False,
            "note": CPU_ONLY,
            "fits": placement.fits,
            "parts": [
                {"device": p.device, "layers": p.layers, "bytes": p.nbytes}
                for p in placement.parts
            ],
            "decode": placement.decode and dict(
                zip(("low", "middle", "high"), placement.decode, strict=True)
            ),
        },
    }  # fmt: skip


def _job_as_dict(job: Job) -> dict[str, Any]:
    return {
        "documents": job.documents,
        "tokens_in": job.tokens_in,
        "tokens_out": job.tokens_out,
        "streams": job.streams,
        "documents_per_hour": job.per_hour.as_dict(),
        "seconds": job.seconds and job.seconds.as_dict(),
        "done": job.done_by and [time.isoformat(timespec="seconds") for time in job.done_by],
        "on_time": job.on_time,
        "possible": job.possible,
    }


def machine_as_dict(machine: Machine) -> dict[str, Any]:
    """A machine as plain values."""
    return {
        "name": machine.name,
        "total_bytes": machine.total,
        "free_bytes": machine.free,
        "cores": machine.cores,
        "read_bytes_per_second": machine.rates.read,
        "int8_operations_per_second": machine.rates.int8,
        "measured": machine.rates.measured,
        "gpus": [{"name": g.name, "total": g.total, "free": g.free} for g in machine.gpus],
    }


def choices_as_dict(machine: Machine, choices: Sequence[Choice]) -> dict[str, Any]:
    """Recommended models as plain values."""
    return {
        "machine": machine_as_dict(machine),
        "models": [
            {
                "model": choice.member.name,
                "quant": choice.fit.quant,
                "context": choice.fit.context,
                "memory": choice.fit.need.as_dict(),
                "budget": choice.fit.budget,
                "decode": choice.fit.decode_tokens_per_second,
                "parameters": choice.member.parameters,
                "active_parameters": choice.member.active_parameters,
                "released": choice.member.released.isoformat(),
            }
            for choice in choices
        ],
    }
