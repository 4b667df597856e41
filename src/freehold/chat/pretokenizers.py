# SPDX-License-Identifier: Apache-2.0
"""The named pre-splitters of byte-level BPE vocabularies (`tokenizer.ggml.pre`).

A name selects regular expressions applied in passes: each pass cuts every piece left by the one
before into matches and the text between them. Expressions are the vendors' own (as in their
`tokenizer.json`), run by the `tokenizers` library. Knows nothing about merges.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

from freehold.errors import TokenizerError


class TokenizerWarning(UserWarning):
    """The vocabulary is usable, but something about it was guessed."""


@dataclass(frozen=True, slots=True)
class PreSplitter:
    """How text is cut before merging, and what comes with it."""

    passes: tuple[str, ...]
    ignore_merges: bool = False  # a piece that is a token is taken whole
    add_bos: bool = False  # when the file does not say
    nfc: bool = False  # the vendor composes characters first
    byte_level: bool = True  # False: raw UTF-8 with ▁ for space and byte fallback

    def build(self) -> pre_tokenizers.PreTokenizer:
        """The `tokenizers` object."""
        steps: list[pre_tokenizers.PreTokenizer] = [
            pre_tokenizers.Split(Regex(expression), "isolated") for expression in self.passes
        ]
        if self.byte_level:
            steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        return pre_tokenizers.Sequence(steps)


_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CJK_COARSE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CJK_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_PUNCTUATION_WORD = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"


def _gpt4(digits: str, letters: str = r"\p{L}+", *, other: str = r"[^\s\p{L}\p{N}]+") -> str:
    return rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?{letters}|{digits}| ?{other}[\r\n]*|{_TAIL}"


def _cased(digits: str, contraction: str = "") -> str:
    word = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{word}{_UPPER}*{_LOWER}+{contraction}|{word}{_UPPER}+{_LOWER}*{contraction}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
    )


# Cased letters of the scripts that have case, ranges as the vendor lists them.
_DEEPSEEK_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ"
    "Ὗ-ώᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿ"
    "ﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)

_LLAMA3 = PreSplitter((_gpt4(r"\p{N}{1,3}"),), ignore_merges=True, add_bos=True)
_GPT4_DIGITS3 = PreSplitter((_gpt4(r"\p{N}{1,3}"),))
_QWEN2 = PreSplitter((_gpt4(r"\p{N}"),))
_QWEN2_NFC = PreSplitter((_gpt4(r"\p{N}"),), nfc=True)
_QWEN35 = PreSplitter(
    (_gpt4(r"\p{N}", r"[\p{L}\p{M}]+", other=r"[^\s\p{L}\p{M}\p{N}]+"),), nfc=True
)
_TEKKEN = PreSplitter((_cased(r"\p{N}"),), ignore_merges=True, add_bos=True)
_GPT4O = PreSplitter((_cased(r"\p{N}{1,3}", _CONTRACTION + "?"),))
_DEEPSEEK_V3 = PreSplitter(
    (
        r"\p{N}{1,3}",
        _CJK_KANA,
        _PUNCTUATION_WORD
        + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
        + _TAIL,
    )
)
_DEEPSEEK_LLM = PreSplitter(
    (
        r"[\r\n]",
        rf"\s?[{_DEEPSEEK_LETTERS}]+",
        r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+".replace(r"\u3000", "\u3000"),
        r"\s+$",
        _CJK_COARSE,
        r"\p{N}+",
    )
)
_DEEPSEEK_CODER = PreSplitter((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_COARSE, r"\p{N}"))
_PLAIN_GPT2 = PreSplitter((_GPT2,))
_SINGLE_DIGITS = PreSplitter((r"\p{N}", _GPT2))
_FALCON = PreSplitter((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"))
_BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"
_DEFAULT = PreSplitter((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))
_GEMMA4 = PreSplitter((r"[^\n]+|[\n]+",), byte_level=False)

PRE_SPLITTERS: dict[str, PreSplitter] = {
    "default": _DEFAULT,
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "pixtral", "falcon3", "falcon-h1", "midm-2.0", "lfm2"),
        _LLAMA3,
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), _GPT4_DIGITS3),
    "qwen2": _QWEN2_NFC,
    **dict.fromkeys(
        ("deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2", "kormo"),
        _QWEN2,
    ),
    "qwen35": _QWEN35,
    "tekken": _TEKKEN,
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "minimax-m2"), _GPT4O),
    **dict.fromkeys(("deepseek-v3", "joyai-llm", "hunyuan-dense"), _DEEPSEEK_V3),
    "deepseek-llm": _DEEPSEEK_LLM,
    "deepseek-coder": _DEEPSEEK_CODER,
    **dict.fromkeys(
        (
            "gpt-2", "phi-2", "olmo", "mpt", "jais", "gigachat", "a.x-4.0", "mellum",
            "modern-bert", "exaone4", "trillion", "granite-docling",
        ),
        _PLAIN_GPT2,
    ),
    **dict.fromkeys(
        ("smollm", "refact", "starcoder", "command-r", "codeshell", "exaone", "minerva-7b"),
        _SINGLE_DIGITS,
    ),
    "falcon": _FALCON,
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), PreSplitter((_BLOOM,))),
    "viking": PreSplitter((_BLOOM, r"\p{N}")),
    "seed-coder": PreSplitter(
        (
            rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_TAIL}",
        )
    ),
    "gemma4": _GEMMA4,
}  # fmt: skip


def pre_splitter(name: str | None) -> PreSplitter:
    """The splitter called `name`; None (absent in the file) warns and takes the default."""
    if name is None:
        warnings.warn(
            "the file does not say how its vocabulary splits text (no tokenizer.ggml.pre): "
            "taking the default, and answers may be worse; convert the model again, "
            "or name the splitter with pre=",
            TokenizerWarning,
            stacklevel=2,
        )
        return _DEFAULT
    found = PRE_SPLITTERS.get(name)
    if found is None:
        raise TokenizerError(
            f"the text splitter {name!r:.60} (tokenizer.ggml.pre) is not known",
            hint=f"name one with pre=, out of {', '.join(sorted(PRE_SPLITTERS))}",
        )
    return found
