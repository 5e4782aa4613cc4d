"""Text encoding shared by the backends that run a bundle's own encoder: from names to embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pcaseg.class_names import first_synonym
from pcaseg.errors import BundleError
from pcaseg.runtime.bundle import TEXT_ENCODER_NAME, TOKENIZER_NAME, Bundle
from pcaseg.runtime.tokenizer import Tokenizer


def open_tokenizer(bundle: Bundle) -> Tokenizer:
    """A bundle's tokenizer.

    Raises:
        BundleError: it is missing or not usable.
    """
    return Tokenizer(bundle.read(TOKENIZER_NAME), source=str(bundle.path / TOKENIZER_NAME))


def embed_names(
    bundle: Bundle,
    tokenizer: Tokenizer,
    names: Sequence[str],
    encode: Callable[[np.ndarray], np.ndarray],
    *,
    most: int,
) -> np.ndarray:
    """Embeds class names, each in the bundle's prompt.

    Args:
        bundle: whose encoder it is.
        tokenizer: of `open_tokenizer`.
        names: with synonyms, of which the first counts.
        encode: tokens `(t, 77)` int64, t at most `most`, to embeddings `(t, D)`.
        most: prompts at a time.

    Returns:
        `(T, D)` float32, unit norm.

    Raises:
        BundleError: the encoder gives another shape.
    """
    template = bundle.manifest.text.template
    tokens = tokenizer([template.replace("{}", first_synonym(name)) for name in names])
    text = np.concatenate([encode(tokens[start : start + most]) for start in range(0, len(tokens), most)])
    expected = (len(names), bundle.manifest.text.embed_dim)
    if text.shape != expected:
        raise BundleError(f"{TEXT_ENCODER_NAME} returned {text.shape}, not {expected}; export the bundle anew")
    result: np.ndarray = text / np.linalg.norm(text, axis=1, keepdims=True)
    return result
