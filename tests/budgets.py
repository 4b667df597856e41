# SPDX-License-Identifier: Apache-2.0
"""How far a result may be off, in one table, with the reason for every number.

Four measures:

* `row_error`: largest difference in a row over the largest magnitude of that row of the
  reference. For ops whose error scales with their output.
* `linear_error`: difference over ‖x‖·‖w‖/√K, the standard deviation of the product were signs
  random. A sum that cancels is not blamed for its small result.
* absolute difference, for cosines and sines.
* `logits_error`: largest difference over the largest magnitude of all reference logits.

The reference computes in float64 and is judged against transformers; other devices are judged
against the reference, over the same stored weights and the same cache type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Budget:
    limit: float
    why: str


_F32_SUM = (
    "float32 sums over K ≤ 4096: a running sum of K terms gathers about 2⁻²⁵·√(K/2) "
    "standard deviations of rounding, 1.3e-6, times 6 for the worst of 10⁵ results"
)
_I8X32 = (
    "activations as int8 with one scale per 32: a step is 1/127 of the largest of 32 normal "
    "values (2.1σ on average, 3.5σ at worst), so each is off by step/√12 = 0.005…0.008σ, and "
    "the product by as many standard deviations; times 5.5 for the worst of 10⁵ results"
)
_I8X256 = (
    "activations as int8 with one scale per 256: the largest of 256 normal values is 2.8σ on "
    "average and 4.2σ at worst, the rest as for 32"
)
_BF16 = (
    "activations rounded to bfloat16 where the processor multiplies those: each off by at most "
    "2⁻⁹ of itself, 2⁻⁹/√3 on average, times 5.5 for the worst of 10⁵ results"
)
_I8X32_TYPES = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4", "NVFP4", "Q1_0", "Q2_0")
_I8X256_TYPES = (
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "TQ1_0", "TQ2_0", "IQ1_S", "IQ1_M",
    "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S",
)  # fmt: skip
_MOE_I8 = (
    "gate, up and down off by 0.5…0.8 % of a spread each, where down's input, a product, has tails "
    "that coarsen its steps; beside a row's largest of 3 spreads. Measured 1.6…2.0 % with one "
    "scale per 32, 3.1…3.7 % per 256"
)
_LOGITS_I8 = (
    "0.5…0.8 % of a spread per linear, in quadrature over 21 linears 3 %, which scores of size 5 "
    "double; the largest logit is 4 spreads, the worst of 6400 differences 4σ: 6 %. Simulated "
    "with NumPy on two seeds: 4.2…5.5 %"
)

# (backend, op, kind): kind is a quant type, a cache type or "".
BUDGETS: dict[tuple[str, str, str], Budget] = {
    ("reference", "logits", ""): Budget(
        2e-5, "transformers computes in float32: 21 linears, each off by about 1e-6 of a spread"
    ),
    ("reference", "chunking", ""): Budget(
        1e-6, "float64 inside, one float32 rounding per op: only its last bit may turn"
    ),
    ("reference", "sweep", ""): Budget(
        2.4e-7, "beside itself: the last bit of float32, should float64 sums differ by order"
    ),
    ("reference", "kv_logits", "f16"): Budget(
        1.5e-3, "keys and values off by up to 2⁻¹¹ of themselves, scores of size 5 by 1e-3 or so"
    ),
    ("reference", "kv_logits", "bf16"): Budget(
        1.2e-2, "keys and values off by up to 2⁻⁸ of themselves: eight times the f16 error"
    ),
    ("reference", "kv_logits", "q8_0"): Budget(
        2.5e-2, "a step is 1/127 of the largest of 32: off by 0.4 % of that, whatever the value"
    ),
    ("cpu", "embed", ""): Budget(
        1.2e-7, "decoding is exact but where a multiply-add is fused: the last bit of float32"
    ),
    ("cpu", "rms_norm", ""): Budget(6e-7, "a float32 sum of squares in 16 lanes, one root"),
    ("cpu", "layer_norm", ""): Budget(
        2e-6,
        "two float32 sums in 16 lanes, one root; differences from a mean that is large beside "
        "them keep fewer bits",
    ),
    ("cpu", "activate", ""): Budget(
        6e-7,
        "an exponential of 2e-7, a quotient and a product; erf's polynomial is off by 1.5e-7 of "
        "the input, which gelu leaves as it is",
    ),
    ("cpu", "add", ""): Budget(0.0, "one float32 addition, rounded the same everywhere"),
    ("cpu", "multiply", ""): Budget(0.0, "one float32 product, rounded the same everywhere"),
    ("cpu", "sparse_gate", ""): Budget(
        2e-6,
        "mean and spread of a row in float32, each off by less than 3e-7 of the spread; what "
        "stands out is a difference of larger numbers",
    ),
    ("cpu", "mix_streams", ""): Budget(
        1e-6, "up to 8 float32 products and sums that may cancel to a third of their size"
    ),
    ("cpu", "match_magnitude", ""): Budget(
        6e-7, "as rms_norm, twice: two sums of squares, a quotient, a root"
    ),
    ("cpu", "scale", ""): Budget(
        1.2e-7, "the factor and the product are each rounded to float32: two halves of a unit"
    ),
    ("cpu", "softcap", ""): Budget(
        6e-7, "a quotient, a float32 tanh of up to 3 units and a product"
    ),
    ("cpu", "rope_tables", ""): Budget(
        1.2e-7, "angles in float64, one rounding to float32 of values up to 1: one unit"
    ),
    ("cpu", "rope", ""): Budget(3e-7, "two products and a sum in float32: 3 roundings of 2⁻²⁴"),
    ("cpu", "linear", "F32"): Budget(1e-5, _F32_SUM),
    ("cpu", "linear", "F16"): Budget(1e-5, _F32_SUM),
    ("cpu", "linear", "BF16"): Budget(8e-3, _BF16),
    **{("cpu", "linear", kind): Budget(0.032, _I8X32) for kind in _I8X32_TYPES},
    **{("cpu", "linear", kind): Budget(0.045, _I8X256) for kind in _I8X256_TYPES},
    ("cpu", "linear_exact", ""): Budget(
        2e-5,
        "inputs that int8 and bfloat16 hold exactly: sums of float32 alone, and block "
        "offsets that cancel, so twice the plain float32 budget",
    ),
    ("cpu", "gate_up", "F32"): Budget(2e-5, _F32_SUM + "; twice, and an exponential"),
    ("cpu", "gate_up", "F16"): Budget(2e-5, _F32_SUM + "; twice, and an exponential"),
    ("cpu", "gate_up", "BF16"): Budget(
        8e-3, "two factors off by 0.8 % of a spread each, beside a row's largest product of 4 or so"
    ),
    **{
        ("cpu", "gate_up", kind): Budget(
            0.025,
            "two factors off by up to 3 % of a spread each, beside a largest product of 4 or so",
        )
        for kind in (*_I8X32_TYPES, *_I8X256_TYPES)
    },
    ("cpu", "moe", "F32"): Budget(1e-5, _F32_SUM + "; gate, up and down, beside a row's largest"),
    ("cpu", "moe", "BF16"): Budget(
        1e-2, "gate_up's factors and down's input each off by 2⁻⁹/√3, beside a largest of 3 spreads"
    ),
    **{("cpu", "moe", kind): Budget(0.03, _MOE_I8) for kind in _I8X32_TYPES},
    **{("cpu", "moe", kind): Budget(0.05, _MOE_I8) for kind in _I8X256_TYPES},
    ("cpu", "attention", "f32"): Budget(
        1e-5,
        "float32 scores up to 20 are off by 2e-6, which the exponential turns into 2e-6 "
        "relative; its polynomial adds 1e-6; sums over 300 keys the rest",
    ),
    ("cpu", "attention", "f16"): Budget(1e-5, "stored alike, hence as f32"),
    ("cpu", "attention", "bf16"): Budget(1e-5, "stored alike, hence as f32"),
    ("cpu", "attention", "q8_0"): Budget(1e-5, "inputs on the q8_0 grid are stored alike"),
    ("cpu", "q8_0_steps", ""): Budget(
        1.01, "a value between two steps may go either way, which moves it by one step"
    ),
    ("cpu", "logits", "F32"): Budget(2e-5, "float32 everywhere, as transformers"),
    ("cpu", "logits", "F16"): Budget(2e-5, "float32 everywhere, as transformers"),
    ("cpu", "logits", "BF16"): Budget(
        2e-2, "2⁻⁹/√3 per linear in quadrature over 21 linears: 0.5 % of a spread, times 4"
    ),
    ("cpu", "logits", ""): Budget(0.08, _LOGITS_I8),
    ("cpu", "trained_logits", "F32"): Budget(1e-4, "float32 everywhere, as transformers"),
    ("cpu", "trained_logits", "F16"): Budget(1e-4, "float32 everywhere, as transformers"),
    ("cpu", "trained_logits", ""): Budget(
        0.03, "int8 activations in a trained model: 1.3…1.5 % simulated with NumPy, doubled"
    ),
    ("cpu", "trained_loss", ""): Budget(
        6e-3, "nats in a mean of 255 losses: 0.4…1.9e-3 simulated with NumPy, tripled"
    ),
    ("cpu", "chunking", ""): Budget(
        0.0, "the order of every sum depends on the row alone, whatever runs beside it"
    ),
    ("cpu", "kv_logits", "f16"): Budget(1.5e-3, "the cache type's own error, as on the reference"),
    ("cpu", "kv_logits", "bf16"): Budget(1.2e-2, "the cache type's own error, as on the reference"),
    ("cpu", "kv_logits", "q8_0"): Budget(2.5e-2, "the cache type's own error, as on the reference"),
}


def limit(backend: str, op: str, kind: str = "") -> float:
    """The budget for `kind`, or the op's general one."""
    entry = BUDGETS.get((backend, op, kind)) or BUDGETS[backend, op, ""]
    return entry.limit


def row_error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference of a row over its largest reference magnitude, worst row."""
    assert got.shape == want.shape, f"shape {got.shape}, not {want.shape}"
    if want.size == 0:
        return 0.0
    want = want.reshape(len(want), -1).astype(np.float64)
    difference = np.abs(got.reshape(want.shape).astype(np.float64) - want).max(axis=1)
    return float((difference / np.maximum(np.abs(want).max(axis=1), 1e-30)).max())


def linear_error(got: np.ndarray, want: np.ndarray, x: np.ndarray, w: np.ndarray) -> float:
    """Largest difference over ‖x‖·‖w‖/√K."""
    assert got.shape == want.shape, f"shape {got.shape}, not {want.shape}"
    norm_x = np.linalg.norm(x.astype(np.float64), axis=1)
    norm_w = np.linalg.norm(w.astype(np.float64), axis=1)
    spread = np.outer(norm_x, norm_w) / np.sqrt(x.shape[1])
    return float((np.abs(got.astype(np.float64) - want) / np.maximum(spread, 1e-30)).max())


def logits_error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference over the largest reference magnitude."""
    assert got.shape == want.shape, f"shape {got.shape}, not {want.shape}"
    want = want.astype(np.float64)
    return float(np.abs(got.astype(np.float64) - want).max() / np.abs(want).max())
