# SPDX-License-Identifier: Apache-2.0
"""From an open checkpoint to its `ModelConfig`, whichever format it has.

Decides which family file is responsible and under which names the tensors are known to it.
The keys themselves are read in `_gguf_config` and `_hf_config`, or by the family's `Dialect`.
"""

from __future__ import annotations

import pkgutil

from freehold import models
from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.formats.checkpoint import Checkpoint
from freehold.models._expert_tensors import stack_experts
from freehold.models._family import dialect_of
from freehold.models._fields import MAX_INT, Fields
from freehold.models._hf_config import text_fields
from freehold.models._norms import ShiftedNorm
from freehold.models.base import ModelConfig
from freehold.models.names import canonical_name
from freehold.ops import RawTensor

# Modules of this folder that are no families; nor is any "_name".
_HELPERS = frozenset(
    {"adapted_ops", "adapters", "base", "blocks", "config", "loader", "names", "rope"}
)
# Hugging Face model types whose arithmetic is another family's, or that GGUF spells otherwise.
_ALIASES = {
    "mistral": "llama",
    "ministral": "llama",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "deepseek_v32": "deepseek32",
    "deepseek_v4": "deepseek4",
    "gemma3_text": "gemma3",
    "gpt_neox": "gptneox",
    "granitemoehybrid": "granite",
    "llama4_text": "llama4",
    "ministral3": "mistral3",
    "muse_glimmer_text": "muse_glimmer",
    "olmo3": "olmo2",
    "gemma3n_text": "gemma3n",
    "gemma4_text": "gemma4",
    "gemma4_unified": "gemma4",
    "gemma4_unified_text": "gemma4",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}
_UNNAMED = {"mistral3": "mistral"}
# GGUF names that are not the family file's: mixtral has none of its own, others can name no module.
_ARCHITECTURES = {"mixtral": "llama", "gpt_oss": "gpt-oss", "muse_glimmer": "muse-glimmer"}
# Tokenizer keys that hold a token id, and lists that run along the tokens.
_TOKEN_IDS = ("bos", "eos", "eot", "eom", "unknown", "padding", "seperator", "separator", "mask")
_TOKEN_LISTS = ("token_type", "scores")


def families() -> tuple[str, ...]:
    """Architectures freehold can run: the family files of this folder, in alphabetical order."""
    found = (module.name for module in pkgutil.iter_modules(models.__path__))
    return tuple(sorted(n for n in found if n not in _HELPERS and not n.startswith("_")))


def family_of(checkpoint: Checkpoint) -> str:
    """The family file that runs `checkpoint`. Raises MalformedFileError where the file does not
    say what it is, UnsupportedModelError where there is no such family."""
    name = checkpoint.architecture
    if checkpoint.format == "safetensors":
        inner = text_fields(checkpoint.metadata, str(checkpoint.path)).get("model_type")
        # What is inside a wrapper that does not name it.
        name = inner if isinstance(inner, str) else _UNNAMED.get(name, name)
        name = _ALIASES.get(name, name)
    if not name:
        key = "general.architecture" if checkpoint.format == "gguf" else "model_type"
        raise MalformedFileError(f"{checkpoint.path}: {key} is missing")
    if checkpoint.metadata.get("general.type") == "adapter":
        raise UnsupportedModelError(
            f"{checkpoint.path}: is an adapter and no model",
            hint="name the model it is for, and the adapter by --adapter or adapters=",
        )
    known = families()
    family = _named_in_gguf(name, known) if checkpoint.format == "gguf" else name
    if family == "llama" and checkpoint.format == "gguf":
        keys = Fields(checkpoint.metadata, str(checkpoint.path), "llama.")
        if keys.integer("expert_count", 0, low=0):
            family = "mixtral"  # in GGUF a Llama with experts
    if family not in known:
        raise UnsupportedModelError(
            f"{checkpoint.path}: the architecture {name[:60]!r} is not supported",
            hint=f"supported: {', '.join((*known, *_ALIASES))}",
        )
    return family


def _named_in_gguf(architecture: str, known: tuple[str, ...]) -> str:
    """The family whose GGUF files call themselves `architecture`; "" where there is none."""
    return next((family for family in known if architecture_of(family) == architecture), "")


def architecture_of(family: str) -> str:
    """The GGUF name of a family's architecture."""
    return _ARCHITECTURES.get(family, family)


def canonical_tensors(checkpoint: Checkpoint) -> dict[str, RawTensor]:
    """The tensors under GGUF names, those of no use to text generation left out, the experts of
    a layer as one `ExpertStack`.

    The views keep the file's own name for messages."""
    where = str(checkpoint.path)
    family = family_of(checkpoint)
    dialect = dialect_of(family)
    if checkpoint.format == "gguf":
        keys = Fields(checkpoint.metadata, where, f"{architecture_of(family)}.")
        return stack_experts(dialect.gguf_tensors(dict(checkpoint.tensors), keys), where)
    tensors: dict[str, RawTensor] = {}
    for name, stored in checkpoint.tensors.items():
        canonical = canonical_name(name, dialect.layer_names)
        if canonical is None:
            continue
        if canonical in tensors:
            raise MalformedFileError(
                f"{where}: {tensors[canonical].name} and {name} are the same tensor"
            )
        shifted = dialect.norms_less_one and canonical.endswith("norm.weight")
        tensors[canonical] = ShiftedNorm(stored, stored.name, stored.shape) if shifted else stored
    keys = dialect.hf_keys(text_fields(checkpoint.metadata, where))
    return stack_experts(dialect.hf_tensors(tensors, keys), where)


def weight_tensors(checkpoint: Checkpoint, config: ModelConfig) -> dict[str, RawTensor]:
    """The canonical tensors that are weights: not those that `config` has taken its constants
    from, nor a saved copy of a tied embedding."""
    tensors = canonical_tensors(checkpoint)
    tensors.pop("rope_freqs.weight", None)  # part of `config.rope`
    if config.tied_embeddings:
        tensors.pop("output.weight", None)
    constants = dialect_of(family_of(checkpoint)).constant_tensors
    return {n: t for n, t in tensors.items() if constants is None or not constants.fullmatch(n)}


def read_config(checkpoint: Checkpoint) -> ModelConfig:
    """Sizes and constants of the model, every number checked.

    Raises MalformedFileError naming the key that is missing or wrong, and
    UnsupportedModelError for an architecture, or a variation of one, that freehold lacks.
    """
    family, where = family_of(checkpoint), str(checkpoint.path)
    architecture, dialect = architecture_of(family), dialect_of(family)
    tensors = canonical_tensors(checkpoint)
    if checkpoint.format == "safetensors":
        return dialect.from_hf(architecture, checkpoint.metadata, tensors, where)
    config = dialect.from_gguf(architecture, checkpoint.metadata, tensors, where)
    _check_vocabulary(Fields(checkpoint.metadata, where, "tokenizer.ggml."), config.vocab_size)
    return config


def _check_vocabulary(keys: Fields, rows: int) -> None:
    """Token ids must have a row in the embedding table, and per-token lists one entry each."""
    for kind in _TOKEN_IDS:
        key = f"{kind}_token_id"
        # Writers without a token of that kind store -1, signed or not.
        if key in keys and keys.get(key) not in (-1, 2**32 - 1):
            keys.integer(key, low=0, high=min(MAX_INT, rows - 1))
    tokens = keys.get("tokens")
    for key in _TOKEN_LISTS:
        values = keys.get(key)
        if values is None or tokens is None:
            continue
        if not hasattr(values, "__len__"):
            raise keys.bad(key, "a list")
        if len(values) != len(tokens):
            raise MalformedFileError(
                f"{keys.where}: {keys.prefix}{key} has {len(values):,} entries, "
                f"but there are {len(tokens):,} tokens"
            )
