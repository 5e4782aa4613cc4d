"""Token ids of a text as the text encoder reads them, without open_clip."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import numpy as np
import tokenizers

from pcaseg.configs import CONTEXT_LENGTH
from pcaseg.errors import BundleError, MissingDependencyError

_UNTOUCHED_BY_FTFY = re.compile(r"[\t\n\x20-\x7e]*")
_HTML_ENTITY = re.compile(r"&.*;", re.DOTALL)


class Tokenizer:
    """CLIP's byte-pair tokenizer: the same ids as open_clip's `SimpleTokenizer`, for every string."""

    def __init__(self, data: bytes, *, source: str = "tokenizer.json") -> None:
        """Reads a tokenizer.

        Args:
            data: contents of the `tokenizer.json` that `pcaseg.export.tokenizer` wrote.
            source: what the message calls it.

        Raises:
            BundleError: not such a file.
        """
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
            ids = self(["a"])
        except Exception as error:  # the tokenizers package raises plain Exception
            raise BundleError(f"{source}: not a readable tokenizer ({error}); export the bundle anew") from error
        if ids.shape != (1, CONTEXT_LENGTH):
            raise BundleError(f"{source}: makes {ids.shape[1]} ids, not {CONTEXT_LENGTH}; export the bundle anew")

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Tokenizes texts.

        Returns:
            `(N, 77)` int64: start token, the text's ids, end token, zeros. Longer texts are cut so that the end
            token stays.

        Raises:
            MissingDependencyError: a text needs ftfy (see `clean_text`), which is not installed.
        """
        # Split into words first: a special token inside a word is no special token (open_clip's reading).
        words = [self._words(clean_text(text)) for text in texts]
        encodings = self._tokenizer.encode_batch(words, is_pretokenized=True)
        return np.array([encoding.ids for encoding in encodings], np.int64).reshape(
            len(words), -1 if words else CONTEXT_LENGTH
        )

    def _words(self, text: str) -> list[str]:
        pieces = self._tokenizer.pre_tokenizer.pre_tokenize_str(text)
        return [text[start:stop] for _, (start, stop) in pieces]


def clean_text(text: str) -> str:
    """Text as CLIP was trained to see it: encoding mistakes and HTML entities mended, lower case, single spaces.

    Encoding mistakes are mended by ftfy, which is imported only for text that it might change: it leaves printable
    ASCII alone unless that holds an HTML entity.

    Raises:
        MissingDependencyError: the text needs ftfy, which is not installed.
    """
    if not _UNTOUCHED_BY_FTFY.fullmatch(text) or _HTML_ENTITY.search(text):
        text = _fix_text(text)
    text = html.unescape(html.unescape(text))
    return " ".join(text.split()).lower()


def _fix_text(text: str) -> str:
    try:
        import ftfy
    except ImportError as error:
        raise MissingDependencyError(
            f"{text!r}: names beyond plain ASCII need the package ftfy, or the model would read other tokens than in "
            "training; pip install ftfy"
        ) from error
    fixed: str = ftfy.fix_text(text)
    return fixed
