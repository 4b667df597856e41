# SPDX-License-Identifier: Apache-2.0
"""Named budgets: everything that decides what a training run computes, in one place.

A run stores its budget with its checkpoints. Knows no file and no machine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from recipes.seedling.model import ModelShape

RECIPE_VERSION = "4"
# Seeds of the splits: development scores steer the training, evaluation scores go on the card,
# and the two never see the same documents.
DEV_SEED = 101
EVALUATION_SEED = 20_001

NORMAL_END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (NORMAL_END, TURN_START, TURN_END)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Budget:
    """Sizes and rates of one run. Shares are of the whole run, in time or in steps."""

    name: str
    shape: ModelShape
    minutes: float = 72.0  # counts unless `steps` is given
    steps: int = 0
    seed: int = 7
    tokenizer_examples: int = 20_000
    chunk_examples: int = 3072  # generated, sorted by length and shuffled together
    micro_tokens: int = 4096  # padded tokens of one forward pass
    micro_batches: int = 1  # forward passes of one step
    max_tokens: int = 512  # longer examples are left out
    short_tokens: int = 160  # the longest example while the run is young
    short_share: float = 0.1
    drill_share: float = 0.09  # copying drills: the first part of the run is nothing else
    drill_rate: float = 0.15  # and afterwards this part of all examples
    spelling_share: float = 0.8  # part of these that copy words into JSON, not tokens
    prompt_weight: float = 0.3  # weight of the loss on the asked text
    prompt_rate: float = 0.3  # part of the asked text that the loss looks at
    # Weight of a token of these answers. Most labels are two tokens and most of a body hangs on a
    # few; beside fields of forty tokens they would hardly be heard.
    classify_weight: float = 4.0
    code_weight: float = 1.5
    muon_lr: float = 0.02
    adam_lr: float = 0.005
    weight_decay: float = 0.02
    warmup_steps: int = 30
    cooldown_share: float = 0.4  # falling to zero at the end
    grad_clip: float = 1.0
    log_steps: int = 20
    dev_steps: int = 400
    dev_examples: int = 48  # of each task
    checkpoint_seconds: float = 180.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, for logs and checkpoints."""
        return dict(json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Budget:
        """The inverse of `to_json`."""
        return cls(**{**values, "shape": ModelShape(**values["shape"])})


BUDGETS: dict[str, Budget] = {
    "seedling": Budget(
        "seedling", ModelShape(vocab=4096, hidden=256, layers=5, heads=4, kv_heads=2, ffn=768)
    ),
    # Minutes become seconds: for tests, which look at the machinery and not at the answers.
    "tiny": Budget(
        "tiny",
        ModelShape(vocab=1024, hidden=64, layers=2, heads=2, kv_heads=1, ffn=256),
        steps=40,
        tokenizer_examples=400,
        chunk_examples=192,
        micro_tokens=1024,
        warmup_steps=5,
        dev_steps=20,
        dev_examples=4,
        log_steps=5,
        drill_share=0.1,
        short_share=0.2,
    ),
}
