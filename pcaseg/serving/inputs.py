"""From the tensors of a request to images and a vocabulary, within the limits."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from pcaseg.class_lists import class_list_names
from pcaseg.class_syntax import ClassTree, read_classes
from pcaseg.images import read_image_bytes
from pcaseg.runtime.vocabulary import Vocabulary, resolve_vocabulary
from pcaseg.serving.limits import Limits, RequestError
from pcaseg.serving.protocol import InferRequest, ProtocolTensor

INPUTS = {"image": "BYTES", "frames": "UINT8", "classes": "BYTES", "vocabulary": "BYTES", "embeddings": "FP32"}
"""Names and datatypes of what a request may hold: `image` or `frames`, and at most one kind of vocabulary."""

Names = ClassTree | Vocabulary


def frames_of(request: InferRequest, limits: Limits, *, bits: int | None) -> list[np.ndarray]:
    """The images of a request, `(H, W, 3)` uint8 each, all of one size.

    Raises:
        RequestError: 400, it has none, two kinds, or images of several sizes; 413, they have too many pixels.
        ImageError: one cannot be read.
    """
    for name, tensor in request.inputs.items():
        if name not in INPUTS:
            raise _bad(f"input {name!r}: is unknown; give {', '.join(INPUTS)}")
        if tensor.datatype != INPUTS[name]:
            raise _bad(f"input {name!r}: is {tensor.datatype}; give {INPUTS[name]}")
    if ("image" in request.inputs) == ("frames" in request.inputs):
        raise _bad("inputs: give either `image` (encoded files) or `frames` (pixels)")
    if "frames" in request.inputs:
        return _plain_frames(request.inputs["frames"], limits)
    tensor, left = request.inputs["image"], limits.pixels
    if not tensor.values:
        raise _bad("input 'image': holds no file; give at least one")
    _check_count(len(tensor.values), limits)
    found = []
    for index, value in enumerate(tensor.values):
        name = f"image {index}" if len(tensor.values) > 1 else "image"
        found.append(read_picture(value if tensor.binary else from_base64(value, name), left, name=name, bits=bits))
        left -= found[-1].shape[0] * found[-1].shape[1]
    if len({frame.shape for frame in found}) > 1:
        raise _bad("input 'image': the images have several sizes; send each size in a request of its own")
    return found


def read_picture(data: bytes, most_pixels: int, *, name: str = "image", bits: int | None = None) -> np.ndarray:
    """The pixels of an encoded file, `(H, W, 3)` uint8.

    Raises:
        LargeImageError: too many pixels.
        ImageError: it cannot be read.
    """
    return read_image_bytes(data, name=name, bits=bits, most_pixels=max(0, most_pixels))


def from_base64(text: str | bytes, name: str) -> bytes:
    """The bytes that base64 stands for.

    Raises:
        RequestError: 400, the text is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(f"{name}: is no base64; in JSON send the file's bytes so, or send them binary") from error


def vocabulary_of(
    request: InferRequest,
    registered: Mapping[str, Callable[[], Vocabulary]],
    prepare: Callable[[ClassTree], Vocabulary],
    limits: Limits,
    encoder_sha256: str,
) -> Vocabulary | None:
    """The vocabulary of a request; None where it names none.

    Args:
        request: with `classes`; with `vocabulary`, the name of a registered one; or with `embeddings` and `classes`.
        registered: makes vocabularies, by name.
        prepare: classes to a vocabulary.
        limits: of the server.
        encoder_sha256: the bundle's text encoder; the request's parameter of this name, where given, must be the same.

    Raises:
        RequestError: 400, it names several or an unknown one, or another encoder; 413, it has too many classes.
        VocabularyError: unusable names or embeddings.
    """
    if request.parameters.get("encoder_sha256", encoder_sha256) != encoder_sha256:
        raise _bad(
            "parameter 'encoder_sha256': names another text encoder than the bundle's; make embeddings with its own"
        )
    names, chosen, embeddings = (request.inputs.get(key) for key in ("classes", "vocabulary", "embeddings"))
    if chosen is not None:
        if names is not None or embeddings is not None or len(chosen.values) != 1:
            raise _bad("input 'vocabulary': is one name of a registered vocabulary; give it alone")
        return registered_vocabulary(_decoded("vocabulary", chosen.values)[0], registered)
    if names is None:
        if embeddings is not None:
            raise _bad("input 'embeddings': their class names are missing; give as many `classes`")
        return None
    entries = _decoded("classes", names.values)
    if embeddings is None:
        return prepare(check_classes(entries, limits))
    if len(entries) > limits.classes:
        raise RequestError(413, f"classes: {len(entries)} names, but this server takes {limits.classes}; give fewer")
    return Vocabulary(tuple(entries), np.asarray(embeddings.values, np.float32), encoder_sha256)


def given_vocabulary(vocabulary: Vocabulary | None) -> Vocabulary:
    """The vocabulary itself.

    Raises:
        RequestError: 400, there is none.
    """
    if vocabulary is None:
        raise _bad("no class names: give `classes`, `vocabulary`, or `embeddings` with `classes`")
    return vocabulary


def class_lists() -> dict[str, Names]:
    """The shipped class lists by name."""
    return {name: resolve_vocabulary(name) for name in class_list_names()}


def preparations(
    names: Mapping[str, Names], prepare: Callable[[Names], Vocabulary]
) -> dict[str, Callable[[], Vocabulary]]:
    """Preparation of each registered vocabulary, by its name."""
    return {name: partial(prepare, one) for name, one in names.items()}


def registered_vocabulary(name: str, registered: Mapping[str, Callable[[], Vocabulary]]) -> Vocabulary:
    """A vocabulary by its name; the name is never a path.

    Raises:
        RequestError: 400, none has it.
    """
    if name not in registered:
        raise _bad(f"vocabulary {name[:80]!r}: is not registered here; choose from {', '.join(sorted(registered))}")
    return registered[name]()


def check_classes(entries: Sequence[str], limits: Limits) -> ClassTree:
    """The classes of a list of entries, unless all their names, parts and synonyms among them, are too many.

    Raises:
        RequestError: 413.
        VocabularyError: unusable names.
    """
    count = len(entries)
    if count <= limits.classes:
        tree = read_classes(entries)
        count = sum(len(group) for group in tree.synonyms)
        if count <= limits.classes:
            return tree
    raise RequestError(413, f"classes: {count} names, but this server takes {limits.classes}; give fewer")


def _plain_frames(tensor: ProtocolTensor, limits: Limits) -> list[np.ndarray]:
    shape = tensor.shape if len(tensor.shape) == 4 else (1, *tensor.shape)
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise _bad(f"input 'frames': the shape is {list(tensor.shape)}; give [H, W, 3] or [N, H, W, 3], RGB")
    _check_count(shape[0], limits)
    if shape[0] * shape[1] * shape[2] > limits.pixels:
        raise RequestError(
            413, f"input 'frames': more pixels than {limits.pixels}, which this server takes; send fewer or smaller"
        )
    return list(tensor.values.reshape(shape))


def _check_count(images: int, limits: Limits) -> None:
    if images > limits.images:
        raise RequestError(413, f"inputs: {images} images, but this server takes {limits.images}; send fewer at once")


def _decoded(name: str, values: Sequence[bytes]) -> list[str]:
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise _bad(f"input {name!r}: a name is not UTF-8; encode it so") from error


def _bad(message: str) -> RequestError:
    return RequestError(400, message)
