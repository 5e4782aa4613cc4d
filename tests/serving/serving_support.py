"""A server in a thread, and bodies of the Open Inference Protocol."""

from __future__ import annotations

import http.client
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason='the extra "serve" is not installed')
pytest.importorskip("uvicorn", reason='the extra "serve" is not installed')
pytest.importorskip("prometheus_client", reason='the extra "serve" is not installed')

from pcaseg.data.scenes import render_scene
from pcaseg.runtime import Segmenter
from pcaseg.runtime.vocabulary import resolve_vocabulary
from pcaseg.serving.limits import Limits
from pcaseg.serving.server import Server
from pcaseg.serving.service import Offer, Sample

SCENES = [render_scene(index, split="evaluation").image for index in range(3)]
LISTS = (("car", "sky", "grass"), ("sky", "car"), ("red car", "house", "sky", "road"), ("tree",), ("grass", "sky"))


@dataclass(frozen=True)
class Answer:
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sentence(self) -> str:
        return self.json()["error"]


@dataclass(frozen=True)
class Running:
    """A server that runs in a thread."""

    server: Server
    thread: threading.Thread

    @property
    def address(self) -> str:
        return self.server.url.removeprefix("http://")

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *, method: str = ""
    ) -> Answer:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def infer(self, body: object, *, model: str = "tiny") -> Answer:
        return self.ask(f"/v2/models/{model}/infer", json.dumps(body).encode())


def offer(bundle: Path, **named: Any) -> Offer:
    """The offer of a bundle on one thread."""
    samples = [Sample("Scene", png(SCENES[0]), ("car", "sky"), ("car wheel", "sky"))]
    defaults = {
        "model": "tiny",
        "open": lambda: Segmenter(bundle, threads=1, window_batch=4),
        "vocabularies": {},
        "samples": lambda: samples,
    }
    given = defaults | named
    given["vocabularies"] = {name: resolve_vocabulary(one) for name, one in given["vocabularies"].items()}
    if "classes" in given:
        given["classes"] = resolve_vocabulary(given["classes"])
    return Offer(**given)


@contextmanager
def running(made: Offer, *, wait: bool = True, limits: Limits | None = None, **options: Any) -> Iterator[Running]:
    """A server on any free port, ready unless `wait` is False, until the end of the block."""
    server = Server(made, port=0, limits=limits, **options)
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            server.serve_bundle()
        except BaseException as error:
            failures.append(error)

    found = Running(server, threading.Thread(target=serve))
    found.thread.start()
    try:
        if wait:
            wait_for(lambda: found.ask("/v2/health/ready").status == 200)
        yield found
    finally:
        server.stop()
        found.thread.join(60)
        assert not found.thread.is_alive()
        if failures:
            raise failures[0]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """An image as the bytes of a file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def names_input(names: tuple[str, ...], name: str = "classes") -> dict[str, Any]:
    """Names as an input in JSON."""
    return {"name": name, "datatype": "BYTES", "shape": [len(names)], "data": list(names)}


def frame_input(pixels: np.ndarray) -> dict[str, Any]:
    """Pixels as an input in JSON."""
    return {"name": "frames", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}


def output(answer: Answer, name: str) -> np.ndarray:
    """An output in JSON as an array."""
    (found,) = [one for one in answer.json()["outputs"] if one["name"] == name]
    return np.array(found["data"]).reshape(found["shape"])


def binary_request(inputs: list[tuple[dict[str, Any], bytes]]) -> tuple[bytes, dict[str, str]]:
    """A body with binary tensors and its headers."""
    described = [one | {"parameters": {"binary_data_size": len(data)}} for one, data in inputs]
    head = json.dumps({"inputs": described}).encode()
    return head + b"".join(data for _, data in inputs), {"Inference-Header-Content-Length": str(len(head))}


def packed(*values: bytes) -> bytes:
    """Strings as the binary extension writes them."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)
