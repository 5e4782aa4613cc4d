"""Writes CLIP's tokenizer as a `tokenizer.json`, so that the runtime needs neither open_clip nor torch.

The words that open_clip's regular expression finds depend on the Unicode tables of the `regex` package; the
engine inside `tokenizers` has tables of another year. So the character classes are written out as ranges.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache

import regex
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from pcaseg.configs import CONTEXT_LENGTH
from pcaseg.files import atomic_path

_SURROGATES = range(0xD800, 0xE000)
_WORD_SUFFIX = "</w>"
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def write_tokenizer(path: str | os.PathLike[str]) -> None:
    """Writes the tokenizer as the runtime's `Tokenizer` reads it: the same bytes every time.

    Raises:
        OutputError: the destination cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(build_tokenizer().to_str(), encoding="utf-8")


def build_tokenizer() -> Tokenizer:
    """The CLIP byte-pair tokenizer of open_clip, from its vocabulary and merges.

    Expects text that is cleaned already. Ids end in `<end_of_text>` also when cut to `CONTEXT_LENGTH`, and are
    padded with 0 to it.
    """
    source = SimpleTokenizer()
    start, end = (source.decoder[index] for index in (source.sot_token_id, source.eot_token_id))
    ranked = sorted(source.bpe_ranks, key=source.bpe_ranks.__getitem__)
    model = models.BPE(vocab=source.encoder, merges=ranked, end_of_word_suffix=_WORD_SUFFIX)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([start, end])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(word_pattern([start, end])), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, source.sot_token_id), (end, source.eot_token_id)],
    )
    tokenizer.enable_truncation(CONTEXT_LENGTH)
    tokenizer.enable_padding(length=CONTEXT_LENGTH, pad_id=0, pad_token=source.decoder[0])
    return tokenizer


def word_pattern(special_tokens: Iterable[str]) -> str:
    """open_clip's regular expression of a word with every character class written out, for any engine.

    Case is ignored as the `regex` package does it, which concerns more than ASCII: U+017F matches `s`.
    """
    literals = "|".join("".join(_class_of(regex.escape(c)) for c in text) for text in [*special_tokens, *_CONTRACTIONS])
    letters, digit, others = (_class_of(c) for c in (r"[\p{L}]", r"[\p{N}]", r"[^\s\p{L}\p{N}]"))
    return f"{literals}|{letters}+|{digit}|{others}+"


def _class_of(pattern: str) -> str:
    """The characters that a pattern of one character matches when case is ignored, as `[\\x{61}-\\x{7A}...]`."""
    ranges: list[list[int]] = []
    for code in map(ord, regex.findall(pattern, _every_character(), regex.IGNORECASE)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(f"\\x{{{low:X}}}-\\x{{{high:X}}}" for low, high in ranges) + "]"


@cache
def _every_character() -> str:
    return "".join(chr(code) for code in range(0x110000) if code not in _SURROGATES)
