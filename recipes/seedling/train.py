# SPDX-License-Identifier: Apache-2.0
"""The training loop: Muon and AdamW, a budget of minutes or steps, checkpoints that resume exactly.

The rate warms up, stays, and falls to zero over the last part of the budget; the state before the
fall is kept, so that a finished run can be prolonged from there. What is trained on is
`batches`; sizes and rates are `settings`.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from recipes.seedling.batches import (
    DRILL,
    Batch,
    Phase,
    Position,
    Source,
    Stream,
    phase_at,
)
from recipes.seedling.example import Example
from recipes.seedling.model import Seedling
from recipes.seedling.settings import Budget
from recipes.seedling.tokenizer import encode_examples

LAST, STABLE, LOG = "last.pt", "stable.pt", "log.jsonl"


@dataclass
class State:
    """What a checkpoint holds beside weights and optimisers."""

    step: int = 0
    tokens: int = 0  # without padding
    seconds: float = 0.0  # spent training, over all sittings
    position: Position = field(default_factory=Position)
    phase: Phase | None = None


def progress_of(budget: Budget, state: State) -> float:
    """Part of the budget that is spent."""
    if budget.steps:
        return state.step / budget.steps
    return state.seconds / (60.0 * budget.minutes)


def rate_at(budget: Budget, step: int, progress: float) -> float:
    """Factor on the learning rates: rises, stays, falls to zero."""
    warm = min(1.0, (step + 1) / max(1, budget.warmup_steps))
    return warm * min(1.0, max(0.0, 1.0 - progress) / budget.cooldown_share)


class Trainer:
    """One run in one folder."""

    def __init__(
        self,
        budget: Budget,
        tokenizer: Tokenizer,
        source: Source,
        out: Path,
        *,
        dev: Sequence[Example] = (),
        device: str = "cpu",
        dtype: str = "bfloat16",
        compiled: bool = False,
    ) -> None:
        self.budget, self.out, self.device = budget, out, torch.device(device)
        self._tokenizer, self._source = tokenizer, source
        self._dtype = None if dtype == "float32" else getattr(torch, dtype)
        self._dev = list(zip(dev, encode_examples(tokenizer, dev), strict=True)) if dev else []
        self.model = Seedling(budget.shape)
        self.model.initialise(torch.Generator().manual_seed(budget.seed))
        self.model.to(self.device)
        if compiled:
            self.model.compile_blocks()
        self._optimisers = self._make_optimisers()
        self.state = State()
        self._stream = Stream(source, tokenizer, budget, Position())
        out.mkdir(parents=True, exist_ok=True)

    def _make_optimisers(self) -> list[torch.optim.Optimizer]:
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            (matrices if parameter.ndim == 2 and "embed" not in name else others).append(parameter)
        b = self.budget
        return [
            torch.optim.Muon(matrices, lr=b.muon_lr, weight_decay=b.weight_decay),
            torch.optim.AdamW(others, lr=b.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    # -- checkpoints -------------------------------------------------------------------------

    def save(self, name: str) -> Path:
        """Write a checkpoint; one that is there is replaced only by a whole one."""
        path = self.out / name
        self.state.position, self.state.phase = self._stream.position, self._stream.phase
        content = {
            "budget": self.budget.to_json(),
            "state": asdict(self.state),
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        return path

    def load(self, path: Path) -> None:
        """Go on exactly where `path` was written. The run's own budget stays."""
        content = load_checkpoint(path, self.device)
        self.model.load_state_dict(content["model"])
        for optimiser, values in zip(self._optimisers, content["optimisers"], strict=True):
            optimiser.load_state_dict(values)
        values = dict(content["state"])
        position = Position(**values.pop("position"))
        phase = values.pop("phase")
        self.state = State(**values)
        self._stream = Stream(self._source, self._tokenizer, self.budget, position)
        self._stream.restore(None if phase is None else Phase(**phase))

    # -- steps -------------------------------------------------------------------------------

    def _loss(self, batch: Batch, answers: int, random: np.random.Generator) -> tuple[Tensor, Any]:
        """Loss of one batch, a step of `answers` answer tokens in all; sums by task for the log."""
        budget = self.budget
        column = np.arange(1, batch.ids.shape[1])[None]  # the predicted tokens
        answered = (column >= batch.asked[:, None]) & (column < batch.lengths[:, None])
        real = np.array([task != DRILL for task in batch.tasks])[:, None]
        looked = real & (column < batch.asked[:, None])
        looked &= random.random(looked.shape) < budget.prompt_rate
        rows, columns = np.nonzero(answered | looked)
        is_answer = answered[rows, columns]
        heard = {"classify": budget.classify_weight, "code": budget.code_weight}
        loudness = np.array([heard.get(task, 1.0) for task in batch.tasks])[rows]
        weights = np.where(
            is_answer,
            loudness / answers,
            budget.prompt_weight / max(1, int(looked.sum())) / budget.micro_batches,
        )
        ids = torch.from_numpy(batch.ids).to(self.device)
        kind = self.device.type
        with torch.autocast(kind, self._dtype or torch.bfloat16, enabled=self._dtype is not None):
            hidden = self.model.hidden(ids)[torch.from_numpy(rows), torch.from_numpy(columns)]
            logits = self.model.logits(hidden)
        targets = ids[torch.from_numpy(rows), torch.from_numpy(columns + 1)]
        losses = F.cross_entropy(logits, targets, reduction="none")
        loss = (losses * torch.from_numpy(weights).float().to(self.device)).sum()
        return loss, (losses.detach().cpu().numpy(), rows, is_answer)

    def step(self) -> dict[str, tuple[float, int]]:
        """One update. Returns sums of losses and counts by task."""
        budget, state = self.budget, self.state
        progress = progress_of(budget, state)
        phase = phase_at(budget, progress)
        batches = [self._stream.take(phase) for _ in range(budget.micro_batches)]
        answers = sum(batch.answer_tokens for batch in batches)
        random = np.random.default_rng([budget.seed, state.step, 3])
        sums: dict[str, tuple[float, int]] = {}
        for batch in batches:
            loss, (losses, rows, is_answer) = self._loss(batch, answers, random)
            loss.backward()  # type: ignore[no-untyped-call]
            for task in set(batch.tasks):
                of_task = np.array([each == task for each in batch.tasks])[rows] & is_answer
                total, count = sums.get(task, (0.0, 0))
                sums[task] = (total + float(losses[of_task].sum()), count + int(of_task.sum()))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), budget.grad_clip)
        factor = rate_at(budget, state.step, progress)
        for optimiser, rate in zip(self._optimisers, (budget.muon_lr, budget.adam_lr), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad()
        state.step += 1
        state.tokens += sum(batch.tokens for batch in batches)
        return sums

    # -- the run -----------------------------------------------------------------------------

    def run(self, *, stop_step: int | None = None) -> State:
        """Train until the budget is spent (or `stop_step` is reached), logging and saving."""
        budget, state = self.budget, self.state
        sums: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
        saved = logged = last = time.monotonic()
        tokens = state.tokens
        self._log({"event": "start", **machine(self.device), "budget": budget.to_json()})
        while progress_of(budget, state) < 1.0 and state.step != stop_step:
            before = progress_of(budget, state)
            for task, (total, count) in self.step().items():
                sums[task] = (sums[task][0] + total, sums[task][1] + count)
            now = time.monotonic()
            state.seconds += now - last
            last = now
            after = progress_of(budget, state)
            if before < 1.0 - budget.cooldown_share <= after:
                self.save(STABLE)
            if state.step % budget.log_steps == 0:
                self._log_step(sums, (state.tokens - tokens) / (now - logged), after)
                sums.clear()
                tokens, logged = state.tokens, now
            if self._dev and state.step % budget.dev_steps == 0:
                self._log({"event": "dev", "step": state.step, **self.dev_scores()})
            if time.monotonic() - saved > budget.checkpoint_seconds:
                self.save(LAST)
                saved = time.monotonic()
        self.save(LAST)
        if self._dev:
            self._log({"event": "dev", "step": state.step, **self.dev_scores()})
        self._log({"event": "stop", "step": state.step, "tokens": state.tokens,
                   "seconds": round(state.seconds, 1)})  # fmt: skip
        return state

    def _log_step(self, sums: dict[str, tuple[float, int]], speed: float, done: float) -> None:
        losses = {task: round(total / max(1, n), 4) for task, (total, n) in sorted(sums.items())}
        s = self.state
        self._log({"event": "step", "step": s.step, "tokens": s.tokens,
                   "seconds": round(s.seconds, 1), "progress": round(done, 4),
                   "tokens_per_s": round(speed), "loss": losses})  # fmt: skip

    def _log(self, entry: dict[str, Any]) -> None:
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "time": int(time.time())}) + "\n")

    @torch.no_grad()
    def dev_scores(self) -> dict[str, Any]:
        """Part of the development answers that greedy decoding gets entirely right, by task.

        One pass tells: up to its first mistake a greedy answer is the known one, so it is right
        exactly if each token is the likeliest after the known ones before it.
        """
        right: dict[str, list[bool]] = defaultdict(list)
        tokens: dict[str, list[float]] = defaultdict(list)
        order = sorted(self._dev, key=lambda item: len(item[1][0]))
        for start in range(0, len(order), 16):
            group = order[start : start + 16]
            ids = torch.zeros(len(group), max(len(r) for _, (r, _) in group), dtype=torch.long)
            for row, (_, (each, _)) in zip(ids, group, strict=True):
                row[: len(each)] = torch.tensor(each)
            ids = ids.to(self.device)
            kind = self.device.type
            with torch.autocast(
                kind, self._dtype or torch.bfloat16, enabled=self._dtype is not None
            ):
                hidden = self.model.hidden(ids)
                for row, (example, (each, asked)) in enumerate(group):
                    logits = self.model.logits(hidden[row, asked - 1 : len(each) - 1])
                    hits = logits.argmax(-1) == ids[row, asked : len(each)]
                    right[example.task].append(bool(hits.all()))
                    tokens[example.task].append(float(hits.float().mean()))
        return {
            "exact": {task: round(float(np.mean(hits)), 3) for task, hits in sorted(right.items())},
            "tokens": {task: round(float(np.mean(t)), 3) for task, t in sorted(tokens.items())},
        }


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint: budget, state, model and optimisers."""
    return dict(torch.load(path, map_location=device, weights_only=True))


def budget_of(path: Path) -> Budget:
    """The budget a checkpoint was written under."""
    return Budget.from_json(load_checkpoint(path)["budget"])


def prolonged(budget: Budget, minutes: float | None, steps: int | None) -> Budget:
    """The same budget with more (or less) time."""
    if minutes is not None:
        return replace(budget, minutes=minutes, steps=0)
    return budget if steps is None else replace(budget, steps=steps)


def resume_point(out: Path, budget: Budget) -> Path | None:
    """The checkpoint to go on from: the last one, or the one before the fall of the rate when
    the run has been given more time since."""
    last, stable = out / LAST, out / STABLE
    if not last.is_file():
        return None
    content = load_checkpoint(last)
    state = State(**{**content["state"], "position": Position(), "phase": None})
    old = Budget.from_json(content["budget"])
    fell = progress_of(old, state) >= 1.0 - old.cooldown_share
    longer = progress_of(budget, state) < progress_of(old, state)
    return stable if fell and longer and stable.is_file() else last


def machine(device: torch.device) -> dict[str, Any]:
    """What the run computes on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {"device": device.type, "machine": name, "threads": torch.get_num_threads(),
            "torch": torch.__version__}  # fmt: skip
