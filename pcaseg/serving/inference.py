"""The addresses of the Open Inference Protocol on a service."""

from __future__ import annotations

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pcaseg import __version__
from pcaseg.runtime.result import Result
from pcaseg.runtime.vocabulary import Vocabulary
from pcaseg.serving.answers import json_answer, told
from pcaseg.serving.bodies import read_body
from pcaseg.serving.inputs import INPUTS, frames_of, vocabulary_of
from pcaseg.serving.limits import RequestError
from pcaseg.serving.outputs import OUTPUTS, outputs_of
from pcaseg.serving.protocol import EXTENSIONS, HEADER_LENGTH, InferRequest, parse_request, write_response
from pcaseg.serving.service import Service

VERSION = "1"
"""Of the model; a server has one bundle."""


class Inference:
    """Answers the protocol's requests from one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """All addresses of the protocol."""
        routes = [
            Route("/v2", told(self._server)),
            Route("/v2/health/live", told(self._live)),
            Route("/v2/health/ready", told(self._ready)),
        ]
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                Route(model, told(self._model)),
                Route(f"{model}/ready", told(self._model_ready)),
                Route(f"{model}/infer", told(self._infer), methods=["POST"]),
            ]
        return routes

    async def _server(self, _: Request) -> Response:
        return json_answer({"name": "pcaseg", "version": __version__, "extensions": list(EXTENSIONS)})

    async def _live(self, _: Request) -> Response:
        return json_answer({"live": True})

    async def _ready(self, _: Request) -> Response:
        ready = self._service.phase == "ready"
        return json_answer({"ready": ready, "phase": self._service.phase}, 200 if ready else 503)

    async def _model_ready(self, request: Request) -> Response:
        self._check_model(request)
        return await self._ready(request)

    async def _model(self, request: Request) -> Response:
        self._check_model(request)
        dimensions = self._service.segmenter.backend.manifest.text.embed_dim
        shapes = {"frames": [-1, -1, -1, 3], "embeddings": [-1, dimensions]}
        return json_answer(
            {
                "name": self._service.offer.model,
                "versions": [VERSION],
                "platform": "pcaseg",
                "inputs": [
                    {"name": name, "datatype": kind, "shape": shapes.get(name, [-1])} for name, kind in INPUTS.items()
                ],
                "outputs": [
                    {"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in OUTPUTS.items()
                ],
            }
        )

    async def _infer(self, request: Request) -> Response:
        self._check_model(request)
        service = self._service
        async with service.admitted("infer"):
            body = await read_body(request, service.limits)
            asked, images, vocabulary = await service.in_thread(self._read, body, request.headers.get(HEADER_LENGTH))
            results = await service.segment(images, vocabulary)
            data, head = await service.in_thread(self._written, asked, results)
        if head is None:
            return Response(data, media_type="application/json")
        return Response(data, headers={HEADER_LENGTH: str(head)}, media_type="application/octet-stream")

    def _read(self, body: bytes, header: str | None) -> tuple[InferRequest, list[np.ndarray], Vocabulary | None]:
        segmenter, limits = self._service.segmenter, self._service.limits
        asked = parse_request(body, header)
        if unknown := (asked.outputs or OUTPUTS).keys() - OUTPUTS.keys():
            raise RequestError(400, f"output {min(unknown)!r}: is unknown; ask for {', '.join(OUTPUTS)}")
        vocabulary = vocabulary_of(
            asked,
            self._service.registered(),
            segmenter.prepare,
            limits,
            segmenter.backend.manifest.text.encoder_sha256,
        )
        return asked, frames_of(asked, limits, bits=segmenter.bits), vocabulary

    def _written(self, asked: InferRequest, results: list[Result]) -> tuple[bytes, int | None]:
        head = {"model_name": self._service.offer.model, "model_version": VERSION}
        return write_response(asked, outputs_of(results), head)

    def _check_model(self, request: Request) -> None:
        model, version = request.path_params["model"], request.path_params.get("version", VERSION)
        if (model, version) != (self._service.offer.model, VERSION):
            raise RequestError(
                404, f"model {model[:80]!r}, version {version[:20]!r}: here is {self._service.offer.model}, {VERSION}"
            )
