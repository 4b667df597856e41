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


# Cased letters of the scripts that have case, in ranges as the vendor lists them. Escaped, because
# an editor that normalises text would change range ends such as U+1F7D.
_DEEPSEEK_LETTERS = (
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1"
    "\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5"
    "\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3"
    "\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115"
    "\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149"
    "\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06"
    "\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943"
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
        "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
        r"(?<!\s)\s+$",  # the vendor has no look-behind: same cuts, but quadratic on long runs
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
            "or name the splitter with pre= (--pre)",
            TokenizerWarning,
            stacklevel=2,
        )
        return _DEFAULT
    found = PRE_SPLITTERS.get(name)
    if found is None:
        raise TokenizerError(
            f"the text splitter {name!r:.60} (tokenizer.ggml.pre) is not known",
            hint=f"name one with pre= (--pre), out of {', '.join(sorted(PRE_SPLITTERS))}",
        )
    return found
