# SPDX-License-Identifier: Apache-2.0
"""The samplers, one function each: what it keeps or changes, and where the definition is from.

Each takes the surviving candidates and returns them, fewer or with other logits. None of them
knows of sequences, seeds or the order they run in; `sampler.py` does.

Notation: x_i is the logit of candidate i, p = softmax(x) over the candidates still there. Ties
go to the lower token id. Truncating samplers always keep at least one candidate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.engine.selection import IndexArray, edge_of_mass, top_indices

# Longest repetition DRY measures; by then the penalty is far beyond any logit.
DRY_MAX_MATCH = 50
# Settings may be any finite number; what they make of a logit stays this far inside float32.
MAX_CHANGE = 1e30
_STRETCH = 512
_LEAST = float(np.finfo(np.float32).min)


@dataclass(slots=True)
class Candidates:
    """Tokens still possible, in ascending order of id, and their logits.

    ``ids is None`` means the whole vocabulary: index = id.
    """

    logits: npt.NDArray[np.float32]  # [n], never written in place unless `owned`
    ids: IndexArray | None = None
    owned: bool = False

    def keep(self, chosen: IndexArray | npt.NDArray[np.bool_]) -> Candidates:
        """The candidates at some ascending indices (or under a mask)."""
        at: IndexArray = (
            np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
        )
        if len(at) == len(self.logits):
            return self
        ids = at if self.ids is None else self.ids[at]
        return Candidates(self.logits[at], ids, owned=True)

    def locate(self, tokens: IndexArray) -> tuple[IndexArray, IndexArray]:
        """Where the given distinct tokens are: (their index here, their index in `tokens`).

        Tokens that are no candidates are left out."""
        if self.ids is None:
            return tokens, np.arange(len(tokens))
        at = np.searchsorted(self.ids, tokens)
        at[at == len(self.ids)] = 0
        present = np.flatnonzero(self.ids[at] == tokens)
        return at[present], present

    def writable(self) -> npt.NDArray[np.float32]:
        """The logits, safe to change in place."""
        if not self.owned:
            self.logits = self.logits.copy()
            self.owned = True
        return self.logits

    def token(self, index: int) -> int:
        """Token id at an index."""
        return index if self.ids is None else int(self.ids[index])


def _weights(logits: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], float]:
    """exp(x - max x) and its sum: p is their quotient."""
    with np.errstate(over="ignore"):  # a difference beyond float32 is a weight of 0 all the same
        weights = logits - logits.max()
    np.exp(weights, out=weights)
    return weights, float(weights.sum(dtype=np.float64))


def penalties(
    c: Candidates,
    tokens: IndexArray,
    counts: npt.NDArray[np.int64],
    *,
    repetition: float,
    presence: float,
    frequency: float,
) -> Candidates:
    """Discourage tokens seen in the window: `counts[j]` > 0 occurrences of distinct `tokens[j]`.

    Repetition r (Keskar et al. 2019, CTRL, §4.1, in the sign-aware form): x > 0 becomes x / r,
    else x · r. Then presence and frequency (OpenAI API reference): x - presence - frequency ·
    count. The window holds prompt and answer alike.
    """
    at, which = c.locate(tokens)
    if not len(at):
        return c
    repetition = min(max(repetition, 1 / MAX_CHANGE), MAX_CHANGE)
    presence, frequency = (
        float(np.clip(p, -MAX_CHANGE, MAX_CHANGE)) for p in (presence, frequency)
    )
    x = c.writable()
    seen = x[at].astype(np.float64)
    possible = seen > -np.inf
    seen = np.where(seen > 0, seen / repetition, seen * repetition)
    seen -= presence + frequency * counts[which]
    x[at] = np.clip(seen, -MAX_CHANGE, MAX_CHANGE, out=seen, where=possible)
    return c


def dry(
    c: Candidates,
    context: npt.NDArray[np.int32],
    *,
    multiplier: float,
    base: float,
    allowed_length: int,
    breakers: npt.NDArray[np.bool_] | None,
) -> Candidates:
    """Discourage tokens that would continue a repetition (p-e-w 2024, "DRY").

    For token t let n be the greatest length (at most 50) such that the last n tokens of
    `context` also occur earlier, directly followed by t, with no sequence breaker among those n
    and t itself no breaker. If n ≥ allowed_length then x_t is lowered by
    multiplier · base^(n - allowed_length). `breakers` is a mask over the vocabulary.
    """
    tokens, lengths = repeat_lengths(context, breakers)
    long_enough = lengths >= allowed_length
    tokens, lengths = tokens[long_enough], lengths[long_enough]
    at, which = c.locate(tokens)
    if not len(at):
        return c
    with np.errstate(over="ignore"):
        growth = np.power(float(base), (lengths[which] - allowed_length).astype(np.float64))
        penalty = np.minimum(multiplier * growth, MAX_CHANGE)
    c.writable()[at] -= penalty.astype(np.float32)
    return c


def repeat_lengths(
    context: npt.NDArray[np.int32], breakers: npt.NDArray[np.bool_] | None
) -> tuple[IndexArray, IndexArray]:
    """Distinct tokens that would continue a repetition, and the length n of `dry` for each."""
    none = np.empty(0, np.int64)
    size = len(context)
    if size < 2:
        return none, none
    limit = min(DRY_MAX_MATCH, size - 1)
    if breakers is not None:
        stops = np.flatnonzero(breakers[context[size - limit :]])
        if len(stops):
            limit -= int(stops[-1]) + 1
    # `ends` are the earlier places where the last n tokens end, thinned out as n grows.
    ends = np.arange(size - 1)
    if breakers is not None:
        ends = ends[~breakers[context[1:]]]
    best: dict[int, int] = {}
    for n in range(1, limit + 1):
        ends = ends[ends >= n - 1]
        ends = ends[context[ends - (n - 1)] == context[size - n]]
        if not len(ends):
            break
        for token in np.unique(context[ends + 1]).tolist():
            best[token] = n
    tokens = np.array(sorted(best), np.int64)
    return tokens, np.array([best[t] for t in tokens.tolist()], np.int64)


def top_n_sigma(c: Candidates, n: float) -> Candidates:
    """Keep x_i ≥ max x - n · σ, σ the standard deviation of the finite logits (Tang et al.
    2024, "Top-nσ")."""
    x = c.logits
    top, bottom = float(x.max()), float(x.min())
    finite = x if bottom > -np.inf else x[x > -np.inf]
    # float64: in float32 squares of large logits overflow and small deviations get lost.
    sigma = float(np.std(finite.astype(np.float64) - top))
    return c.keep(x >= max(top - n * sigma, _LEAST))


def top_k(c: Candidates, k: int) -> Candidates:
    """Keep the k largest logits (Fan et al. 2018)."""
    return c.keep(top_indices(c.logits, k))


def typical_p(c: Candidates, mass: float) -> Candidates:
    """Keep the candidates whose information is nearest the expected (Meister et al. 2022).

    H is the entropy of p. Candidates are taken by ascending |-log p_i - H| until their
    probabilities reach `mass`, the one that reaches it included.
    """
    weights, total = _weights(c.logits)
    p = weights / total
    with np.errstate(divide="ignore", invalid="ignore"):
        information = -np.log(p)
        entropy = float(np.where(p > 0, p * information, 0).sum(dtype=np.float64))
    return _reach(c, -np.abs(information - np.float32(entropy)), p, mass)


def top_p(c: Candidates, mass: float) -> Candidates:
    """Keep the smallest set of most probable candidates with probability ≥ `mass` (Holtzman et
    al. 2019, nucleus sampling)."""
    weights, total = _weights(c.logits)
    return _reach(c, c.logits, weights, mass * total)


def _reach(
    c: Candidates,
    score: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    mass: float,
) -> Candidates:
    """Take candidates by descending score until their weights add up to `mass`.

    A flat distribution may need half the vocabulary, so only those at the edge are sorted.
    """
    before, reached, candidates = edge_of_mass(score, weights, mass)
    ranking = candidates[np.argsort(-score[candidates], kind="stable")]
    sums = reached + np.cumsum(weights[ranking], dtype=np.float64)
    count = int(np.searchsorted(sums, mass)) + 1
    before[ranking[:count]] = True
    return c.keep(before)


def min_p(c: Candidates, share: float) -> Candidates:
    """Keep p_i ≥ share · max p (Nguyen et al. 2024)."""
    x = c.logits
    return c.keep(x >= x.max() + np.log(share))


def xtc(c: Candidates, threshold: float) -> Candidates:
    """Of the candidates with p_i ≥ threshold and not 0, if there are two or more, drop all but the
    least probable; among equals the one with the highest id stays (p-e-w 2024, "exclude top
    choices"). The caller decides by lot whether this runs at all.
    """
    weights, total = _weights(c.logits)
    above = np.flatnonzero((weights > 0) & (weights >= threshold * total))
    if len(above) < 2:
        return c
    least = above[len(above) - 1 - int(np.argmin(weights[above][::-1]))]
    mask = np.ones(len(weights), np.bool_)
    mask[above] = False
    mask[least] = True
    return c.keep(mask)


def temperature(c: Candidates, value: float, *, keep_origin: bool = False) -> Candidates:
    """x / value. Logits are first shifted so that the best is 0: no small value overflows.

    With `keep_origin` they are not, for a later sampler that looks at their signs.
    """
    with np.errstate(over="ignore"):
        if keep_origin:
            x = c.logits.astype(np.float64)
            np.clip(x / value, -MAX_CHANGE, MAX_CHANGE, out=x, where=x > -np.inf)
            scaled = x.astype(np.float32)
        else:
            scaled = c.logits - c.logits.max()
            if value >= 1 / MAX_CHANGE:
                scaled /= np.float32(value)
            else:  # no float32
                scaled = (scaled.astype(np.float64) / value).astype(np.float32)
        return Candidates(scaled, c.ids, owned=True)


def draw(c: Candidates, u: float) -> int:
    """The token at quantile u in [0, 1) of p, candidates in order of id."""
    weights, _ = _weights(c.logits)
    # First the stretch, then the place in it: a running sum over all of them takes far longer.
    starts = np.arange(0, len(weights), _STRETCH)
    sums = np.cumsum(np.add.reduceat(weights, starts, dtype=np.float64))
    target = u * sums[-1]
    stretch = min(int(np.searchsorted(sums, target, side="right")), len(sums) - 1)
    start = stretch * _STRETCH
    inside = weights[start : start + _STRETCH]
    if stretch:
        target -= sums[stretch - 1]
    index = int(np.searchsorted(np.cumsum(inside, dtype=np.float64), target, side="right"))
    # Sums in another order may differ in the last bit: never take a token that has no weight.
    return c.token(start + min(index, int(np.flatnonzero(inside)[-1])))
