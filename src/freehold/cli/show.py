# SPDX-License-Identifier: Apache-2.0
"""`freehold show`: what a model file is, from its header alone.

Reads metadata and tensor shapes; loads no weights and builds no tokenizer. A model freehold
cannot run is described all the same, with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import _licence_text, _show_files, console, options
from freehold.errors import FreeholdError, UserError

if TYPE_CHECKING:
    from freehold.formats.checkpoint import Checkpoint
    from freehold.models.base import ModelConfig
    from freehold.ops import KVDtype

# What to call a size in files of either kind, for architectures only described.
_SIZES: dict[str, tuple[str, str]] = {
    "context_length": ("context_length", "max_position_embeddings"),
    "num_layers": ("block_count", "num_hidden_layers"),
    "hidden_size": ("embedding_length", "hidden_size"),
    "ffn_size": ("feed_forward_length", "intermediate_size"),
    "num_heads": ("attention.head_count", "num_attention_heads"),
    "num_kv_heads": ("attention.head_count_kv", "num_key_value_heads"),
    "head_dim": ("attention.key_length", "head_dim"),
    "vocab_size": ("vocab_size", "vocab_size"),
    "sliding_window": ("attention.sliding_window", "sliding_window"),
    "chunk": ("attention.chunk_size", "attention_chunk_size"),
    "num_experts": ("expert_count", "num_local_experts"),
}
_KV_TYPES: tuple[KVDtype, ...] = ("f32", "f16", "bf16", "q8_0")


def command(
    model: options.Model,
    as_json: options.Json = False,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", "-c", min=1, help="Context to plan memory for; default: the model's own."
        ),
    ] = None,
) -> None:
    """Describe a model file and the memory it will need."""
    from freehold.formats.checkpoint import open_checkpoint
    from freehold.model_names import resolve_model

    with open_checkpoint(resolve_model(model)) as checkpoint:
        description = describe(checkpoint, context)
    if as_json:
        console.data_json(description)
    else:
        console.data(console.printable(render(description)))


def describe(checkpoint: Checkpoint, context: int | None = None) -> dict[str, Any]:
    """Everything `show` says, as plain values."""
    from freehold.hub import inspection

    config, refusal = _config(checkpoint)
    get = checkpoint.metadata.get
    return {
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "architecture": checkpoint.architecture or None,
        "name": _text(get("general.name") or get("_name_or_path")),
        "runs": refusal is None,
        "refusal": refusal,
        "files": [{"path": str(f), "bytes": f.stat().st_size} for f in checkpoint.files],
        "parameters": sum(t.num_elements for t in checkpoint.tensors.values()),
        "tensors": len(checkpoint.tensors),
        "tensor_bytes": checkpoint.nbytes,
        "types": _types(checkpoint),
        "sizes": _sizes(checkpoint, config),
        "rope": _rope(checkpoint, config),
        "licence": inspection.licence_claim(checkpoint),
        "licences": _licences(checkpoint),
        "tokenizer": _show_files.tokenizer(checkpoint),
        "chat_template": _template(inspection.chat_template(checkpoint)),
        "recommended_sampling": _recommended(checkpoint),
        "memory": _memory(checkpoint, config, context),
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _config(checkpoint: Checkpoint) -> tuple[ModelConfig | None, str | None]:
    """The configuration, and why the model cannot run if it cannot."""
    from freehold.backends.cpu import NATIVE_TYPES
    from freehold.models.config import read_config
    from freehold.quants import names

    try:
        config = read_config(checkpoint)
    except UserError as error:
        return None, error.message.removeprefix(f"{checkpoint.path}: ")
    if not checkpoint.tensors:
        return config, "the file holds no weights"
    # Whole numbers are tables, never multiplied.
    weights = [t for t in checkpoint.tensors.values() if t.qtype not in ("I32", "I64")]
    stored = {t.qtype for t in weights}
    matrices = {t.qtype for t in weights if len(t.shape) > 1}
    if unknown := sorted(stored - set(names())):
        return config, f"it holds tensors of type {', '.join(unknown)}, which freehold lacks"
    if unknown := sorted(matrices - NATIVE_TYPES):
        return config, (
            f"it holds matrices of type {', '.join(unknown)}, which can be converted "
            "(freehold quantize --allow-requantize) but not run"
        )
    return config, None


def _types(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Tensors grouped by element type, largest first."""
    groups: dict[str, dict[str, Any]] = {}
    for tensor in checkpoint.tensors.values():
        group = groups.setdefault(
            tensor.qtype, {"type": tensor.qtype, "tensors": 0, "parameters": 0, "bytes": 0}
        )
        group["tensors"] += 1
        group["parameters"] += tensor.num_elements
        group["bytes"] += tensor.nbytes
    return sorted(groups.values(), key=lambda group: -int(group["bytes"]))


def _licences(checkpoint: Checkpoint) -> dict[str, Any]:
    """Which licences bind, and on whose word."""
    from freehold.licensing import facts_of

    facts = facts_of(checkpoint.path, metadata=checkpoint.metadata)
    return {
        "binding": list(facts.licences),
        "source": facts.licence_source,
        "level": facts.openness.level,
        "notes": list(facts.notes),
    }


def _sizes(checkpoint: Checkpoint, config: ModelConfig | None) -> dict[str, int | None]:
    sizes: dict[str, int | None] = {}
    for name, (gguf_key, hf_key) in _SIZES.items():
        value = getattr(config, name, None)
        if value is None:
            key = f"{checkpoint.architecture}.{gguf_key}" if checkpoint.format == "gguf" else hf_key
            stored = checkpoint.metadata.get(key)
            value = int(stored) if isinstance(stored, int) else None
        sizes[name] = value
    return sizes


def _rope(checkpoint: Checkpoint, config: ModelConfig | None) -> dict[str, Any]:
    """Base and scaling as the file declares them."""
    get = checkpoint.metadata.get
    if checkpoint.format == "gguf":
        prefix = f"{checkpoint.architecture}.rope."
        scaling = {
            key.removeprefix(prefix + "scaling."): value
            for key, value in checkpoint.metadata.items()
            if key.startswith(prefix + "scaling.") and isinstance(value, (int, float, str))
        }
        if "rope_freqs.weight" in checkpoint.tensors:
            scaling.setdefault("type", "frequency factors in the file")
        base = get(prefix + "freq_base")
    else:
        inner = get("text_config")  # of the language model in a multimodal one
        get = inner.get if isinstance(inner, Mapping) else get
        declared = get("rope_parameters") or get("rope_scaling")
        if isinstance(declared, Mapping) and isinstance(declared.get("full_attention"), Mapping):
            declared = declared["full_attention"]  # of the layers without a window
        scaling = {
            str(key): value
            for key, value in (declared.items() if isinstance(declared, Mapping) else ())
            if isinstance(value, (int, float, str)) and key != "rope_theta"
        }
        base = get("rope_theta")
        if base is None and isinstance(declared, Mapping):
            base = declared.get("rope_theta")
    return {
        "base": base if isinstance(base, (int, float)) else None,
        "rotary_dim": 2 * len(config.rope.inv_freq) if config is not None else None,
        "scaling": scaling or None,
    }


def _template(source: str | None) -> dict[str, Any] | None:
    if source is None:
        return None
    encoded = source.encode("utf-8", "surrogatepass")
    return {
        "sha256": hashlib.sha256(encoded).hexdigest(),
        "characters": len(source),
        "source": source,
    }


def _recommended(checkpoint: Checkpoint) -> dict[str, Any]:
    from freehold._llm_advice import recommended_sampling

    try:
        return dict(recommended_sampling(checkpoint))
    except FreeholdError as error:
        return {"unusable": error.message}


def _memory(
    checkpoint: Checkpoint, config: ModelConfig | None, context: int | None
) -> dict[str, Any]:
    """Bytes for the weights, for one sequence's cache at `context`, and in all."""
    from freehold.planner.memory import need
    from freehold.planner.sizes import sizes_of

    if config is None or not checkpoint.tensors:
        unknown = dict.fromkeys(("context", "kv_cache", "beside", "total"))
        return {"weights": checkpoint.nbytes, **unknown}
    context = context or config.context_length
    sizes = sizes_of(checkpoint, config)
    needs = {kind: need(sizes, context, kv_dtype=kind) for kind in _KV_TYPES}
    return {
        "weights": sizes.resident_bytes,
        "context": context,
        "kv_cache": {kind: each.kv_cache for kind, each in needs.items()},
        "beside": needs["f16"].buffers + needs["f16"].process,
        "total": {kind: each.total for kind, each in needs.items()},
    }


def render(d: Mapping[str, Any]) -> str:
    """The description for a person."""
    rows = [["model", d["name"] or Path(d["path"]).name], ["file", _files(d)]]
    rows.append(["architecture", d["architecture"] or "not declared"])
    if not d["runs"]:
        rows.append(["runs", f"no: {d['refusal']}"])
    parameters = console.count(d["parameters"])
    bits = 8 * d["tensor_bytes"] / d["parameters"] if d["parameters"] else 0
    rows.append(["parameters", f"{parameters} in {d['tensors']} tensors, {bits:.2f} bits each"])
    rows += [*_size_rows(d["sizes"]), ["rope", _rope_text(d["rope"])]]
    rows.append(["licence", d["licence"] or "not stated in the file"])
    rows += [["binding", _licence_text.binding(d["licences"])]]
    rows += [["", note] for note in d["licences"]["notes"]]
    rows += _tokenizer_rows(d)
    recommended = ", ".join(f"{k} {v}" for k, v in d["recommended_sampling"].items())
    rows.append(
        ["sampling", f"recommended: {recommended}" if recommended else "nothing recommended"]
    )
    blocks = [console.table(rows), _type_table(d["types"]), _memory_table(d["memory"])]
    return "\n\n".join(block for block in blocks if block)


def _files(d: Mapping[str, Any]) -> str:
    total = console.size(sum(f["bytes"] for f in d["files"]))
    parts = f" in {len(d['files'])} files" if len(d["files"]) > 1 else ""
    return f"{d['path']} ({d['format']}, {total}{parts})"


def _size_rows(sizes: Mapping[str, int | None]) -> list[list[str]]:
    def shown(name: str) -> str:
        value = sizes[name]
        return "?" if value is None else f"{value:,}"

    window = f", sliding window {shown('sliding_window')}" if sizes["sliding_window"] else ""
    if sizes["chunk"]:
        window += f", attention in chunks of {shown('chunk')}"
    experts = f", {shown('num_experts')} experts" if sizes["num_experts"] else ""
    return [
        ["context", f"{shown('context_length')} tokens{window}"],
        [
            "shape",
            f"{shown('num_layers')} layers, {shown('hidden_size')} wide, "
            f"feed-forward {shown('ffn_size')}{experts}",
        ],
        [
            "attention",
            f"{shown('num_heads')} heads, {shown('num_kv_heads')} key-value heads, "
            f"head size {shown('head_dim')}",
        ],
    ]


def _rope_text(rope: Mapping[str, Any]) -> str:
    base = "default" if rope["base"] is None else f"{rope['base']:,.0f}"
    dims = f", {rope['rotary_dim']} dimensions" if rope["rotary_dim"] else ""
    declared = dict(rope["scaling"] or {})
    kind = [str(declared.pop(key)) for key in ("type", "rope_type") if key in declared][:1]
    scaling = ", ".join(kind + [f"{k} {v}" for k, v in declared.items()])
    return f"base {base}{dims}" + (f", scaling: {scaling}" if scaling else ", no scaling")


def _tokenizer_rows(d: Mapping[str, Any]) -> list[list[str]]:
    tokenizer, template = d["tokenizer"], d["chat_template"]
    if tokenizer is None:
        rows = [["tokenizer", "none in the file"]]
    else:
        vocabulary = tokenizer["vocab_size"]
        size = f", {vocabulary:,} tokens" if vocabulary is not None else ""
        rows = [["tokenizer", f"{tokenizer['kind']}{size}"]]
    if template is None:
        return [*rows, ["template", "none: `freehold run` continues text as it is"]]
    rows.append(["template", f"{template['characters']:,} characters, {template['sha256'][:16]}"])
    lines = [line for line in template["source"].splitlines() if line.strip()][:3]
    return rows + [["", console.one_line(line, 90)] for line in lines]


def _type_table(types: list[dict[str, Any]]) -> str:
    if not types:
        return ""
    total = sum(group["bytes"] for group in types) or 1
    rows = [["type", "tensors", "parameters", "bytes", "share"]]
    for group in types:
        rows.append(
            [
                group["type"],
                f"{group['tensors']}",
                console.count(group["parameters"]),
                console.size(group["bytes"]),
                f"{group['bytes'] / total:.1%}",
            ]
        )
    return console.table(rows, right=(1, 2, 3, 4))


def _memory_table(memory: Mapping[str, Any]) -> str:
    if memory["kv_cache"] is None:
        return f"memory: weights {console.size(memory['weights'])}"
    rows = [["--kv-type", "weights", "cache", "beside", "together"]]
    for kind, nbytes in memory["kv_cache"].items():
        rows.append(
            [
                kind,
                console.size(memory["weights"]),
                console.size(nbytes),
                console.size(memory["beside"]),
                console.size(memory["total"][kind]),
            ]
        )
    heading = (
        f"memory for one sequence of {memory['context']:,} tokens "
        "(`freehold plan` says more: speed, documents, other machines)"
    )
    return heading + "\n" + console.table(rows, right=(1, 2, 3, 4))
