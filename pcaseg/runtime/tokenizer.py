"""Token ids of a text as the text encoder reads them, without open_clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tokenizers

from pcaseg.cleaning import clean_text
from pcaseg.configs import CONTEXT_LENGTH
from pcaseg.errors import BundleError


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
        return self.encode(texts)[0]

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        """As a call, and which of the texts are cut.

        Raises:
            MissingDependencyError: as a call.
        """
        # Split into words first: a special token inside a word is no special token (open_clip's reading).
        words = [self._words(clean_text(text)) for text in texts]
        encodings = self._tokenizer.encode_batch(words, is_pretokenized=True)
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        cut = [index for index, encoding in enumerate(encodings) if encoding.overflowing]
        return ids.reshape(len(words), -1 if words else CONTEXT_LENGTH), cut

    def _words(self, text: str) -> list[str]:
        pieces = self._tokenizer.pre_tokenizer.pre_tokenize_str(text)
        return [text[start:stop] for _, (start, stop) in pieces]
