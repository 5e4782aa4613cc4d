"""Limits of a server, and the refusal of a request that is beyond them or cannot be used."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pcaseg.errors import ImageError, LargeImageError, PcasegError, VocabularyError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Bounds of what one server takes.

    Attributes:
        body_bytes: of a request, also after it is unpacked.
        pixels: of all images of a request together.
        classes: names of a request; a registered vocabulary may have more.
        queue: requests in the house: read, waiting or running.
        images: of a request.
        batch: images that run at once.
        wait_ms: that an image waits for others of its vocabulary, at most.
        body_seconds: that a body may take to arrive.
    """

    body_bytes: int = 16 << 20
    pixels: int = 1 << 24
    classes: int = 1024
    queue: int = 64
    images: int = 32
    batch: int = 8
    wait_ms: float = 5
    body_seconds: float = 30


class RequestError(PcasegError):
    """A request that gets no labels; the message is one sentence.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def status_of(error: BaseException) -> int:
    """The status of HTTP that says whose fault an error is."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, LargeImageError):
        return 413
    return 400 if isinstance(error, (ImageError, VocabularyError)) else 500


def sentence_of(error: Exception) -> str:
    """Sentence that a caller is told; what nobody foresaw is logged instead."""
    if isinstance(error, PcasegError):
        return str(error)
    _LOG.error("a request failed", exc_info=error)
    if isinstance(error, MemoryError):
        return "out of memory; send smaller images or fewer classes"
    return "the server failed on this request; its log says why"
