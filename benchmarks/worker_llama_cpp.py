# SPDX-License-Identifier: Apache-2.0
"""llama.cpp behind the worker protocol, through the C functions of llama-cpp-python.

Only the low-level calls are used: the high-level class samples, builds Python lists of logits
and cannot decode several sequences at once, all of which would make the peer look slower than
it is. For the same reason nothing is sampled here: tokens are given in advance.
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

import llama_cpp

from worker_protocol import random_ids, serve

MAX_BATCH = 2048  # llama.cpp's own default for one llama_decode call


@llama_cpp.llama_log_callback
def log_errors(level: int, text: bytes, _user: ctypes.c_void_p) -> None:
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        sys.stderr.buffer.write(text)


class Peer:
    """One model with a single-sequence context and, once asked for, a many-sequence one."""

    def __init__(self) -> None:
        self.model: Any = None
        self.threads = 1
        self.repack = True
        self.single: Any = None
        self.many: Any = None
        self.max_streams = 1
        self.stream_context = 0
        self.vocab_size = 0
        self.filled = 0  # positions of the single context that hold a prompt
        self.prompts = 0  # sequences of the many-sequence context that hold theirs

    def load(
        self,
        path: str,
        threads: int,
        context: int,
        stream_context: int,
        streams: int,
        repack: bool = True,
    ) -> dict[str, Any]:
        """Load the file and be ready for the first token."""
        began = time.perf_counter()
        llama_cpp.llama_log_set(log_errors, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = repack  # the switch behind the command line's --repack
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        # A file without a tokenizer has no vocabulary for llama.cpp; any small id will do.
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(vocab) or 1000
        self.threads, self.repack = threads, repack
        self.max_streams, self.stream_context = streams, stream_context
        self.single = self._context(context, 1)
        return {
            "seconds": time.perf_counter() - began,
            "version": llama_cpp.__version__,
            "system": llama_cpp.llama_print_system_info().decode(),
            "model_bytes": llama_cpp.llama_model_size(self.model),
        }

    def _context(self, positions: int, sequences: int) -> Any:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = positions
        params.n_batch = MAX_BATCH
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = self.threads
        # Flash attention stays "auto" and the micro-batch 512, the defaults: measured to be the
        # better choice for this engine on x86. One cache buffer per sequence (not unified)
        # spares it from masking out the other sequences' keys.
        params.kv_unified = False
        context = llama_cpp.llama_init_from_model(self.model, params)
        if not context:
            raise RuntimeError("llama.cpp could not create a context")
        return context

    def _decode(self, context: Any, tokens: list[tuple[int, int, int, bool]]) -> None:
        """One llama_decode over (token, position, sequence, wants logits)."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        for i, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        batch.n_tokens = len(tokens)
        status = llama_cpp.llama_decode(context, batch)
        # Reading the logits waits for the result: llama_decode may return before it is done.
        llama_cpp.llama_synchronize(context)
        llama_cpp.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")

    def _prompt(self, context: Any, ids: list[int], sequence: int) -> None:
        for start in range(0, len(ids), MAX_BATCH):
            part = range(start, min(start + MAX_BATCH, len(ids)))
            self._decode(context, [(ids[p], p, sequence, p == len(ids) - 1) for p in part])

    def prefill(self, n: int, seed: int) -> dict[str, Any]:
        """Seconds from n token ids to the logits of the last one, on an empty cache."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.single), False)
        self.filled = 0
        ids = random_ids(n, self.vocab_size, seed)
        began = time.perf_counter()
        self._prompt(self.single, ids, 0)
        seconds = time.perf_counter() - began
        self.filled = n
        return {"seconds": seconds, "tokens": n}

    def decode(self, depth: int, n: int) -> dict[str, Any]:
        """Seconds for n tokens one by one, after `depth` cached ones (at least one): those of the
        last prefill where it was as long."""
        memory = llama_cpp.llama_get_memory(self.single)
        depth = max(depth, 1)
        if self.filled == depth:  # the prompt is still there: drop what the last call added
            llama_cpp.llama_memory_seq_rm(memory, 0, depth, -1)
        else:
            llama_cpp.llama_memory_clear(memory, False)
            self._prompt(self.single, random_ids(depth, self.vocab_size, 0), 0)
            self.filled = depth
        ids = random_ids(n, self.vocab_size, 11)
        began = time.perf_counter()
        for i, token in enumerate(ids):
            self._decode(self.single, [(token, depth + i, 0, True)])
        return {"seconds": time.perf_counter() - began, "tokens": n}

    def streams(self, streams: int, prompt: int, n: int) -> dict[str, Any]:
        """Seconds for n steps of `streams` sequences together; prompts are not timed."""
        if self.many is None:
            self.many = self._context(self.stream_context * self.max_streams, self.max_streams)
        memory = llama_cpp.llama_get_memory(self.many)
        for sequence in range(self.prompts):  # drop what the last call added to the prompts
            llama_cpp.llama_memory_seq_rm(memory, sequence, prompt, -1)
        for sequence in range(self.prompts, streams):
            self._prompt(self.many, random_ids(prompt, self.vocab_size, sequence), sequence)
        self.prompts = max(self.prompts, streams)
        ids = random_ids(n * streams, self.vocab_size, 11)
        began = time.perf_counter()
        for i in range(n):
            row = ids[i * streams : (i + 1) * streams]
            self._decode(self.many, [(t, prompt + i, s, True) for s, t in enumerate(row)])
        return {"seconds": time.perf_counter() - began, "tokens": n * streams}


if __name__ == "__main__":
    peer = Peer()
    serve(
        {
            "load": peer.load,
            "prefill": peer.prefill,
            "decode": peer.decode,
            "streams": peer.streams,
        }
    )
