# SPDX-License-Identifier: Apache-2.0
"""How a model would be split over graphics cards and the processor: whole layers, each with its
part of the cache.

A plan, not something freehold does: it computes on the processor. Knows bytes and bandwidths; how
fast a card multiplies is not needed for one sequence, whose tokens wait for memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from freehold.planner.machine import Machine
from freehold.planner.memory import MemoryNeed, usable
from freehold.planner.sizes import ModelSizes

# Driver, kernels and one step's arrays, on every card that is used.
_CARD_BYTES = 700 << 20
# Of a card's bandwidth that published runs reach (a tenth of them less, half, a tenth more), where
# every weight is read and where experts are chosen: 196 results of others' engines on single cards.
_DENSE_SHARES = (0.38, 0.57, 0.84)
_EXPERT_SHARES = (0.20, 0.34, 0.41)
_PROCESSOR_SHARES = (0.55, 0.75, 0.90)


@dataclass(frozen=True, slots=True)
class Part:
    """What one device would hold."""

    device: str
    layers: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Placement:
    """A split. `fits` says whether what is left beside the cards fits the RAM."""

    parts: tuple[Part, ...]  # cards in their order, then the processor
    fits: bool
    # Tokens per second of one sequence: low, middle, high; None where a bandwidth is not known.
    decode: tuple[float, float, float] | None

    @property
    def layers_on_cards(self) -> int:
        return sum(part.layers for part in self.parts[:-1])


def place(sizes: ModelSizes, wanted: MemoryNeed, machine: Machine) -> Placement:
    """Fill the cards one after the other with layers; the rest stays with the processor, as do the
    table of embeddings and the process itself. The output matrix follows the last layer."""
    layers = sizes.num_layers
    lookup = sum(m.resident_bytes for m in sizes.matrices if m.use == "lookup")
    head = sum(m.resident_bytes for m in sizes.matrices if m.use == "head")
    per_layer = (wanted.weights - lookup - head + wanted.kv_cache) / layers
    parts: list[Part] = []
    left = layers
    for gpu in machine.gpus:
        room = gpu.free - _CARD_BYTES
        taken = max(0, min(left, int(room // per_layer)))
        nbytes = taken * per_layer
        if taken == left and left and nbytes + head <= room:
            nbytes += head
            head = 0
        left -= taken
        parts.append(Part(gpu.name, taken, int(nbytes)))
    rest = int(left * per_layer) + lookup + head + wanted.buffers + wanted.process
    parts.append(Part("processor", left, rest))
    read = [part.nbytes for part in parts[:-1]] + [int(left * per_layer) + head]
    return Placement(tuple(parts), rest <= usable(machine.free), _rates(sizes, machine, read))


def _rates(
    sizes: ModelSizes, machine: Machine, read: list[int]
) -> tuple[float, float, float] | None:
    """Devices take turns: their times add up. Of experts each token reads some."""
    experts = sum(m.resident_bytes for m in sizes.matrices if m.use == "expert")
    whole = max(1, sum(read))
    share = 1.0
    if sizes.num_experts:
        share -= min(experts, whole) / whole * (1 - sizes.top_k / sizes.num_experts)
    shares = _EXPERT_SHARES if sizes.num_experts else _DENSE_SHARES
    seconds = []
    for on_card, on_processor in zip(shares, _PROCESSOR_SHARES, strict=True):
        total = read[-1] * share / (machine.rates.read * on_processor)
        for gpu, nbytes in zip(machine.gpus, read, strict=False):
            if nbytes and gpu.read is None:
                return None
            if gpu.read is not None:
                total += nbytes * share / (gpu.read * on_card)
        seconds.append(total)
    low, middle, high = (1 / max(1e-9, s) for s in seconds)
    return low, middle, high
