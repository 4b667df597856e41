# SPDX-License-Identifier: Apache-2.0
"""`freehold doctor`: what this machine offers, what it lacks, and what to do about it.

Every probe returns what it found or a reason, and none can fail the command. It reads only
what the operating system publishes; the two measured numbers come from the CPU backend.
"""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from freehold.cli import console, options

_PACKAGES = (
    "freehold",
    "numpy",
    "tokenizers",
    "jinja2",
    "typer",
    "rich",
    "psutil",
)
_LOW_DISK = 10e9
# Below this the page cache cannot hold even a 1B model beside a desktop.
_LOW_MEMORY = 4e9


def _read(path: str) -> str | None:
    """A small system file's text, or None where the system has no such file."""
    try:
        return Path(path).read_text("utf-8", errors="replace").strip()
    except OSError:
        return None


def _processor() -> dict[str, Any]:
    import psutil

    model = None
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    quota = (_read("/sys/fs/cgroup/cpu.max") or "max").split()
    limited = len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit()
    return {
        "model": model or platform.processor() or None,
        "machine": platform.machine(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "container_limit_cores": int(quota[0]) / int(quota[1]) if limited else None,
    }


def _memory() -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory()
    limit = _read("/sys/fs/cgroup/memory.max") or "max"
    return {
        "total_bytes": memory.total,
        "available_bytes": memory.available,
        "swap_bytes": psutil.swap_memory().total,
        "container_limit_bytes": int(limit) if limit.isdigit() else None,
        "transparent_huge_pages": _huge_page_mode(),
    }


def _huge_page_mode() -> str | None:
    """The chosen word of ``always [madvise] never``."""
    text = _read("/sys/kernel/mm/transparent_hugepage/enabled") or ""
    return text.partition("[")[2].partition("]")[0] or None


def _backend(measure: bool) -> dict[str, Any]:
    """Kernel levels and measured limits, or why the CPU backend does not load."""
    from freehold import backends
    from freehold.errors import FreeholdError

    try:
        ops: Any = backends.create("cpu")  # first, for its sentence about what is missing
    except FreeholdError as error:
        return {"usable": False, "reason": console.one_line(str(error), 200)}
    from freehold.backends.cpu import available_isas

    return {
        "usable": True,
        "isa": ops.isa,
        "available_isas": available_isas(),
        "threads": ops.threads,
        "limits": dict(ops.machine_limits()) if measure else None,
    }


def _gpus() -> dict[str, Any]:
    nvidia = []
    for information in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in (_read(str(information)) or "").splitlines():
            if line.startswith("Model:"):
                nvidia.append(line.partition(":")[2].strip())
    return {
        "nvidia": nvidia,
        "nvidia_driver": (_read("/proc/driver/nvidia/version") or "").partition("\n")[0] or None,
        "nvidia_smi": shutil.which("nvidia-smi"),
        "amd": Path("/dev/kfd").exists(),
        "rocm_smi": shutil.which("rocm-smi"),
    }


def _versions() -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "system": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _advice(report: dict[str, Any]) -> list[str]:
    """What is missing, each with what to do."""
    advice = []
    backend, memory, gpus = report["backend"], report["memory"], report["gpus"]
    if not backend["usable"]:
        advice.append(
            f"the cpu backend does not load ({backend['reason']}): reinstall freehold with a C++20 "
            "compiler, or use --backend reference, which is exact and slow"
        )
    if memory["transparent_huge_pages"] == "never":
        advice.append(
            "transparent huge pages are off: as root, write 'madvise' to "
            "/sys/kernel/mm/transparent_hugepage/enabled to read weights faster"
        )
    if memory["available_bytes"] < _LOW_MEMORY:
        advice.append(
            f"only {console.size(memory['available_bytes'])} of memory is free: close programs, "
            "or choose a model file below half of that"
        )
    if report["disk"]["free_bytes"] < _LOW_DISK:
        advice.append(f"only {console.size(report['disk']['free_bytes'])} of disk is free here")
    if gpus["nvidia"] or gpus["amd"]:
        advice.append("a GPU is present, but this version of freehold runs on the CPU only")
    elif gpus["nvidia_smi"] and not gpus["nvidia_driver"]:
        advice.append("nvidia-smi is installed but the NVIDIA driver is not loaded")
    missing = [name for name in _PACKAGES if report["versions"][name] is None]
    if missing:
        advice.append(f"packages missing: {', '.join(missing)}; reinstall freehold")
    return advice


def _render(report: dict[str, Any]) -> str:
    cpu, memory, backend, gpus = (report[k] for k in ("processor", "memory", "backend", "gpus"))
    limit = cpu["container_limit_cores"]
    rows = [
        ["processor", str(cpu["model"] or cpu["machine"])],
        [
            "cores",
            f"{cpu['physical_cores']} physical, {cpu['logical_cores']} logical, "
            f"{cpu['usable_cores']} usable"
            + (f", container limit {limit:g}" if limit is not None else ""),
        ],
    ]
    if backend["usable"]:
        rows.append(["kernels", f"{backend['isa']} chosen, {backend['threads']} threads"])
        if backend["available_isas"]:
            rows.append(["", "available: " + ", ".join(backend["available_isas"])])
        for key, unit in (("read_gbps", "GB/s read"), ("int8_gops", "Gop/s int8")):
            if backend["limits"] and key in backend["limits"]:
                rows.append(["measured", f"{console.rate(backend['limits'][key])} {unit}"])
    else:
        rows.append(["kernels", f"not usable: {backend['reason']}"])
    rows += [
        [
            "memory",
            f"{console.size(memory['total_bytes'])}, {console.size(memory['available_bytes'])} "
            f"available, swap {console.size(memory['swap_bytes'])}",
        ],
        ["huge pages", memory["transparent_huge_pages"] or "unknown"],
        ["GPU", ", ".join(gpus["nvidia"]) or ("AMD" if gpus["amd"] else "none found")],
        ["disk here", f"{console.size(report['disk']['free_bytes'])} free"],
    ]
    if memory["container_limit_bytes"] is not None:
        rows.insert(-3, ["", f"container limit {console.size(memory['container_limit_bytes'])}"])
    rows += [[name, str(version)] for name, version in report["versions"].items()]
    lines = [console.table(rows), ""]
    if report["advice"]:
        lines += ["To do:"] + [f"  - {line}" for line in report["advice"]]
    else:
        lines.append("Nothing is missing.")
    return console.printable("\n".join(lines))


def command(
    as_json: options.Json = False,
    measure: Annotated[
        bool, typer.Option(help="Measure memory bandwidth and int8 rate; takes a few seconds.")
    ] = True,
) -> None:
    """Report what this machine offers and what is missing."""
    report: dict[str, Any] = {
        "processor": _processor(),
        "memory": _memory(),
        "backend": _backend(measure),
        "gpus": _gpus(),
        "disk": {"path": str(Path.cwd()), "free_bytes": shutil.disk_usage(".").free},
        "versions": _versions(),
    }
    report["advice"] = _advice(report)
    if as_json:
        console.data_json(report)
    else:
        console.data(_render(report))
