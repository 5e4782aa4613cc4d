"""Text encoding shared by the backends that run a bundle's own encoder: from names to embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from pcaseg.class_names import first_synonym, refuse_cut
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
        VocabularyError: a prompt is too long.
        BundleError: the encoder gives another shape.
    """
    return _embed(bundle, prompt_tokens(bundle, tokenizer, names), encode, most)


def embed_prompts(
    bundle: Bundle,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    encode: Callable[[np.ndarray], np.ndarray],
    *,
    most: int,
) -> np.ndarray:
    """As `embed_names`, of whole prompts."""
    tokens, cut = tokenizer.encode(prompts)
    refuse_cut(prompts, cut)
    return _embed(bundle, tokens, encode, most)


def _embed(bundle: Bundle, tokens: np.ndarray, encode: Callable[[np.ndarray], np.ndarray], most: int) -> np.ndarray:
    text = np.concatenate([encode(tokens[start : start + most]) for start in range(0, len(tokens), most)])
    expected = (len(tokens), bundle.manifest.text.embed_dim)
    if text.shape != expected:
        raise BundleError(f"{TEXT_ENCODER_NAME} returned {text.shape}, not {expected}; export the bundle anew")
    result: np.ndarray = text / np.linalg.norm(text, axis=1, keepdims=True)
    return result


def prompt_tokens(
    bundle: Bundle, tokenizer: Tokenizer, names: Sequence[str], *, source: str = "class list"
) -> np.ndarray:
    """Tokens of the names in the bundle's prompt, `(T, 77)` int64; `source` is what messages call the list.

    Raises:
        VocabularyError: a prompt is too long.
        MissingDependencyError: as `Tokenizer`.
    """
    template = bundle.manifest.text.template
    tokens, cut = tokenizer.encode([template.replace("{}", first_synonym(name)) for name in names])
    refuse_cut(names, cut, source=source)
    return tokens


def check_prompts(path: str | os.PathLike[str], names: Sequence[str], *, source: str) -> None:
    """Refuses names that a bundle's text encoder would not read to the end, before a backend is opened.

    Raises:
        VocabularyError: a prompt is too long.
        BundleError: the bundle or its tokenizer is missing or not usable.
        MissingDependencyError: as `Tokenizer`.
    """
    bundle = Bundle(path)
    prompt_tokens(bundle, open_tokenizer(bundle), names, source=source)
