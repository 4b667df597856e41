# SPDX-License-Identifier: Apache-2.0
"""From what a person calls a model to where it lies: the one door for `LLM` and every command.

Knows names of built-in models, of models in the store, and of those that could be fetched into it;
opens nothing, fetches nothing and asks no network. A path costs no look into the store.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from freehold import builtin
from freehold.errors import InvalidParameterError, ModelNotFoundError, StoreError

if TYPE_CHECKING:
    from freehold.hub.reference import Reference
    from freehold.hub.store import Store, StoredModel

# A word, not a path: no separator, no file ending, and short enough to be looked for.
_BARE_NAME = re.compile(r"(?=.{1,100}\Z)[A-Za-z][\w.-]*(:[\w.-]+)?")
_PREFIXES = ("hf:", "ollama:", "lmstudio:", "llama.cpp:", "path:", "http://", "https://")
_SUFFIXES = (".gguf", ".safetensors", ".json")


def resolve_model(model: str | Path) -> Path:
    """Where `model` lies: what a built-in or stored model of this name is, else the path itself.

    A known name wins over a file of that name in the current folder, so that a command means the
    same wherever it is run; ``./seedling``, or a `Path`, is the file. Raises ModelNotFoundError
    when a built-in model is absent or nothing has this name, and StoreError where the store's
    model is damaged.
    """
    if isinstance(model, Path):
        return model
    if model in builtin.MODELS:
        return builtin.model_path(model)
    if _is_path(model):
        return Path(model)
    stored = find_stored(model)
    if stored is not None:
        return stored.path()
    path = Path(model)
    if (_BARE_NAME.fullmatch(model) or model.startswith(_PREFIXES)) and not path.exists():
        raise _not_found(model)
    return path


def get_stored(model: str) -> StoredModel:
    """`find_stored`, or StoreError."""
    found = find_stored(model)
    if found is None:
        raise StoreError(f"{model}: the store has no such model", hint="see `freehold list`")
    return found


def find_stored(model: str) -> StoredModel | None:
    """The model of the store that `model` is a name of, in any spelling; None where there is none.

    Raises ModelNotFoundError where it could be several, StoreError where its record is damaged.
    """
    store = _store()
    if store is None:
        return None
    if (found := store.find(model)) is not None:
        return found
    reference = _reference(model)
    if reference is None:
        return None
    if reference.name != model and (found := store.find(reference.name)) is not None:
        return found
    return _loosely(model, reference, store.models())


def find_among(model: str, models: Sequence[StoredModel]) -> StoredModel | None:
    """As `find_stored`, among models that were read from a store before; reads nothing."""
    reference = _reference(model)
    for name in (model,) if reference is None else (model, reference.name):
        exact = [each for each in models if name == each.name]
        if found := exact or [each for each in models if name in each.aliases]:
            return found[0]
    return None if reference is None else _loosely(model, reference, models)


def _loosely(model: str, reference: Reference, models: Sequence[StoredModel]) -> StoredModel | None:
    """The one model that a name leaves open, by its repository."""
    if models and reference.kind == "catalogue":
        homes = _catalogue_repositories(reference.repository)
        return _only([each for each in models if each.repository in homes], model)
    return _only([each for each in models if _may_be(each, reference)], model)


def is_stored_name(model: str) -> bool:
    """Whether `resolve_model` looks for `model` in the store at all."""
    return model not in builtin.MODELS and not _is_path(model)


def _is_path(model: str) -> bool:
    """Whether `model` can be nothing but a path."""
    if model.startswith(("/", "./", "../", "~")) or model in (".", ".."):
        return True
    return model.lower().endswith(_SUFFIXES) and not model.startswith(_PREFIXES)


def _reference(model: str) -> Reference | None:
    from freehold.hub import reference

    try:
        return reference.parse(model)
    except InvalidParameterError:
        return None


def _may_be(stored: StoredModel, wanted: Reference) -> bool:
    """Whether a stored model is one of a repository that `wanted` leaves open: without quant or
    revision, or in another case."""
    if wanted.kind != "huggingface" or wanted.file is not None:
        return False
    if not stored.name.startswith("hf:") or stored.repository.lower() != wanted.repository.lower():
        return False
    quant = wanted.quant is None or (stored.quant or "").lower() == wanted.quant.lower()
    return quant and wanted.revision in (None, stored.revision)


def _catalogue_repositories(name: str) -> tuple[str, ...]:
    """The repositories in which the catalogue knows a model of that name."""
    from freehold.catalogue.catalogue import find

    member = find(name)
    return () if member is None else (member.repo, *member.gguf_repos)


def _only(found: list[StoredModel], model: str) -> StoredModel | None:
    if len({each.digest for each in found}) > 1:  # copies under other names are no choice
        names = ", ".join(each.name for each in found[:8])
        raise ModelNotFoundError(
            f"{model}: the store has {len(found)} models of this name", hint=f"name one: {names}"
        )
    return found[0] if found else None


def _not_found(model: str) -> ModelNotFoundError:
    """What to do about a name that nothing has."""
    reference = _reference(model)
    fetchable = reference is not None and (
        reference.kind in ("huggingface", "ollama", "url")
        or (reference.kind == "catalogue" and bool(_catalogue_repositories(reference.repository)))
    )
    if fetchable:
        return ModelNotFoundError(
            f"{model}: is not on this machine", hint=f"`freehold pull {model}` fetches it"
        )
    close = _close(model)
    hint = f"did you mean {close}?" if close else (
        f"give the path of a model file, or a name: {', '.join(builtin.MODELS)}, or what "
        "`freehold list` shows"
    )  # fmt: skip
    return ModelNotFoundError(f"{model}: no such file, and no model has this name", hint=hint)


def _close(model: str) -> str | None:
    from freehold.catalogue.catalogue import members

    names = [*builtin.MODELS]
    store = _store()
    for each in store.models() if store is not None else ():
        names += [each.name, *each.aliases]
    by_tail = [name for name in names if name.partition(":")[2] == model]
    names += [member.name for member in members()]
    return next(iter(by_tail or get_close_matches(model, names, n=1, cutoff=0.75)), None)


def _store() -> Store | None:
    from freehold.hub.store import Store

    try:
        return Store()
    except InvalidParameterError:  # no home directory: no store
        return None
