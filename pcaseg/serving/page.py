"""The page for people: its files, and the addresses that it asks."""

from __future__ import annotations

import base64
import io
import zlib
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pcaseg import __version__
from pcaseg.runtime.palette import hex_colours
from pcaseg.runtime.result import Result
from pcaseg.runtime.vocabulary import Vocabulary
from pcaseg.serving.answers import json_answer, told
from pcaseg.serving.bodies import read_body
from pcaseg.serving.inputs import check_classes, from_base64, read_picture, registered_vocabulary
from pcaseg.serving.limits import RequestError
from pcaseg.serving.protocol import json_bytes, read_json
from pcaseg.serving.service import Service

_FILES = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
_FOLDER = resources.files("pcaseg") / "serving" / "static"
_KEYS = {"image", "classes", "vocabulary", "file", "opacity"}
_DOWNLOADS = {"overlay": "image/png", "labels": "image/png", "summary": "application/json"}


class Page:
    """Answers the page's requests from one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._files = {name: (_FOLDER / name).read_bytes() for name in _FILES}

    def routes(self) -> list[Route]:
        """All addresses of the page."""
        return [
            Route("/", told(self._page)),
            Route("/static/{name}", told(self._file)),
            Route("/samples/{number:int}.png", told(self._sample)),
            Route("/api/about", told(self._about)),
            Route("/api/vocabularies/{name}", told(self._vocabulary)),
            Route("/api/segment", told(self._segment), methods=["POST"]),
        ]

    async def _page(self, _: Request) -> Response:
        return self._shipped("page.html")

    async def _file(self, request: Request) -> Response:
        return self._shipped(request.path_params["name"])

    def _shipped(self, name: str) -> Response:
        if name not in self._files:
            raise HTTPException(404)
        return Response(self._files[name], media_type=_FILES[name])

    async def _sample(self, request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(self._service.samples):
            raise HTTPException(404)
        return Response(self._service.samples[number].png, media_type="image/png")

    async def _about(self, _: Request) -> Response:
        service = self._service
        backend, default = service.segmenter.backend, service.default
        return json_answer(
            {
                "model": service.offer.model,
                "version": __version__,
                "backend": backend.name,
                "weights": backend.manifest.weights.kind,
                "classes": None if default is None else default.names,
                "vocabularies": service.vocabulary_sizes,
                "limits": {
                    "body_bytes": service.limits.body_bytes,
                    "pixels": service.limits.pixels,
                    "classes": service.limits.classes,
                },
                "samples": [
                    {"url": f"/samples/{number}.png", "title": one.title, "classes": one.classes, "parts": one.parts}
                    for number, one in enumerate(service.samples)
                ],
            }
        )

    async def _vocabulary(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._service.vocabulary_sizes:
            raise HTTPException(404)
        return json_answer({"name": name, "classes": self._service.names_of(name)})

    async def _segment(self, request: Request) -> Response:
        """Labels of one picture.

        The body is a JSON object: `image` (base64 of a file), `classes` or `vocabulary`; and for a download `file`
        (overlay, labels or summary) and `opacity`.
        """
        service = self._service
        async with service.admitted("page"):
            body = await read_body(request, service.limits)
            asked, image, vocabulary = await service.in_thread(self._read, body)
            (result,) = await service.segment([image], vocabulary)
            data, kind = await service.in_thread(_answer, result, asked.get("file"), asked.get("opacity", 0.5))
        return Response(data, media_type=kind)

    def _read(self, body: bytes) -> tuple[dict[str, Any], np.ndarray, Vocabulary | None]:
        service = self._service
        asked = read_json(body)
        if unknown := asked.keys() - _KEYS:
            raise RequestError(400, f"{min(unknown)[:80]!r}: is unknown; give {', '.join(sorted(_KEYS))}")
        if asked.get("file") not in (None, *_DOWNLOADS):
            raise RequestError(400, f"file: is none of {', '.join(_DOWNLOADS)}; give one, or leave it out")
        opacity = asked.get("opacity", 0.5)
        if type(opacity) not in (int, float) or not 0 <= opacity <= 1:
            raise RequestError(400, "opacity: is no number from 0 to 1; give one, such as 0.5")
        if not isinstance(asked.get("image"), str):
            raise RequestError(400, "image: is missing; give the base64 of a picture's file")
        vocabulary = self._chosen(asked)
        data = from_base64(asked.pop("image"), "image")
        image = read_picture(data, service.limits.pixels, bits=service.segmenter.bits)
        return asked, image, vocabulary

    def _chosen(self, asked: dict[str, Any]) -> Vocabulary | None:
        classes, vocabulary = asked.get("classes"), asked.get("vocabulary")
        if classes is not None and vocabulary is not None:
            raise RequestError(400, "classes and vocabulary: both are given; give one")
        if isinstance(vocabulary, str):
            return registered_vocabulary(vocabulary, self._service.registered())
        if isinstance(classes, list):
            return self._service.segmenter.prepare(check_classes(classes, self._service.limits))
        if classes is not None or vocabulary is not None:
            raise RequestError(400, "classes: are no list of names, or vocabulary is no name; give one of these")
        return None


def _answer(result: Result, file: str | None, opacity: float) -> tuple[bytes, str]:
    """The bytes of an answer and their media type."""
    if file == "overlay":
        return _png(result.overlay(opacity=opacity)), _DOWNLOADS[file]
    if file == "labels":
        return _png(result.label_picture()), _DOWNLOADS[file]
    if file == "summary":
        return json_bytes(result.summary()), _DOWNLOADS[file]
    labels = zlib.compress(result.labels.astype("<u2").tobytes(), 1)
    answer = result.summary() | {
        "colours": hex_colours(result.classes),
        "labels": base64.b64encode(labels).decode(),
    }
    return json_bytes(answer), "application/json"


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
