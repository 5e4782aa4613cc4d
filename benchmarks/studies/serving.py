"""A server under load: `python -m pcaseg.benchmarks.studies.serving BUNDLE --out rows.json`.

The server runs in a process of its own on the loopback. Callers ask one at a time, then many at once with one
vocabulary, then many at once with one each; every answer is compared with `Segmenter`'s. Before the last, bodies that
are damaged at random: each must be answered, and the server go on.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pcaseg.arguments import Parser, rows_file, up_to
from pcaseg.data.scene_names import BACKGROUNDS, PAIRS
from pcaseg.data.scenes import render_scene
from pcaseg.environment import resident_mib, write_rows
from pcaseg.errors import PcasegError, reported
from pcaseg.runtime.segmenter import Segmenter
from pcaseg.serving.protocol import HEADER_LENGTH

MODEL = "load"
ANSWERED = {200, 400, 413}
"""Statuses that a damaged body may get; 200 where the damage hit pixels alone."""

_NAMES, _SEED, _TIMEOUT_S = 4, 0, 300


@dataclass(frozen=True)
class LoadRow:
    """One way to ask.

    Attributes:
        case: how.
        callers: at once.
        vocabularies: different ones among them.
        requests: answered in all.
        wrong: answers that were none, or not `Segmenter`'s labels.
        per_second: answers.
        p50_ms, p95_ms, p99_ms: from a request to the end of its answer.
        mib: of memory that the server holds afterwards; None where the system does not tell.
    """

    case: str
    callers: int
    vocabularies: int
    requests: int
    wrong: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mib: float | None


@dataclass(frozen=True)
class Asked:
    """A request with its right answer.

    Attributes:
        body, headers: as they are sent.
        labels: `(H, W)` that must come back.
    """

    body: bytes
    headers: Mapping[str, str]
    labels: np.ndarray


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows; 1 where an answer was wrong."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.serving", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--callers", type=up_to(1000), default=200, help="at once, each with its own vocabulary")
    parser.add_argument("--each", type=up_to(1000), default=2, help="requests of each caller (default: 2)")
    parser.add_argument("--damaged", type=up_to(100_000), default=1000, help="bodies (default: 1000)")
    parser.add_argument("--out", type=rows_file, required=True, help="rows to write, .json")
    options = parser.parse_args(arguments)
    with Segmenter(options.bundle, threads=1) as segmenter:
        own = [make_request(segmenter, index, index) for index in range(options.callers)]
        shared = [make_request(segmenter, index, 0) for index in range(min(16, options.callers))]
    with _server(options.bundle, queue=2 * options.callers) as (address, process):

        def measure(case: str, asked: Sequence[Asked], callers: int, vocabularies: int) -> LoadRow:
            return load(
                address,
                asked,
                case=case,
                callers=callers,
                vocabularies=vocabularies,
                mib=partial(resident_mib, process.pid),
            )

        rows = [measure("one at a time", shared * 4, 1, 1)]
        rows.append(measure("at once, one vocabulary", shared * 16, len(shared), 1))
        rows.append(measure("at once, a vocabulary each", own * options.each, options.callers, options.callers))
        statuses = damage(address, own[0], options.damaged)
        rows.append(measure("the same after damaged bodies", own * options.each, options.callers, options.callers))
    found = {str(status): count for status, count in sorted(statuses.items())}
    write_rows(options.out, rows, preset="tiny", threads=1, damaged=found)
    for row in rows:
        print(f"{row.case}: {row.per_second:.1f}/s, p50 {row.p50_ms:.0f} p95 {row.p95_ms:.0f} p99 {row.p99_ms:.0f} ms")
    print(f"damaged bodies by status: {found}")
    return int(any(row.wrong for row in rows) or not statuses.keys() <= ANSWERED)


def make_request(segmenter: Segmenter, scene: int, vocabulary: int) -> Asked:
    """A request for a scene's labels by one of endless vocabularies, and its answer."""
    rng = np.random.default_rng([_SEED, vocabulary])
    names = [str(name) for name in rng.choice((*PAIRS, *BACKGROUNDS), _NAMES, replace=False)]
    image = render_scene(scene % 8, seed=_SEED, split="evaluation").image
    pixels, texts = image.tobytes(), b"".join(len(name).to_bytes(4, "little") + name.encode() for name in names)
    inputs = [
        {"name": "frames", "datatype": "UINT8", "shape": image.shape, "parameters": {"binary_data_size": len(pixels)}},
        {"name": "classes", "datatype": "BYTES", "shape": [_NAMES], "parameters": {"binary_data_size": len(texts)}},
    ]
    outputs = [{"name": "labels", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    labels = segmenter(image, vocabulary=names).labels
    return Asked(head + pixels + texts, {HEADER_LENGTH: str(len(head))}, labels)


def load(
    address: str,
    asked: Sequence[Asked],
    *,
    case: str,
    callers: int,
    vocabularies: int,
    mib: Callable[[], float | None] = lambda: None,
    model: str = MODEL,
) -> LoadRow:
    """Sends requests from so many threads, each on a connection that stays open, and compares the answers."""
    connections = threading.local()
    path = f"/v2/models/{model}/infer"

    def ask(one: Asked) -> tuple[bool, float]:
        if not hasattr(connections, "own"):
            connections.own = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
        start = time.perf_counter()
        connections.own.request("POST", path, one.body, dict(one.headers))
        response = connections.own.getresponse()
        data = response.read()
        took = time.perf_counter() - start
        labels = data[int(response.headers.get(HEADER_LENGTH, 0)) :]
        return response.status == 200 and labels == one.labels.astype("<u2").tobytes(), took

    start = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        found = list(pool.map(ask, asked))
    seconds = time.perf_counter() - start
    p50, p95, p99 = np.percentile([1e3 * took for _, took in found], (50, 95, 99)).tolist()
    wrong = sum(not right for right, _ in found)
    return LoadRow(case, callers, vocabularies, len(found), wrong, len(found) / seconds, p50, p95, p99, mib())


def damage(address: str, asked: Asked, bodies: int, *, model: str = MODEL) -> Counter[int]:
    """Statuses of the answers to bodies that are damaged at random; the same ones in every run.

    Raises:
        OSError: it did not answer one.
    """
    rng, statuses = np.random.default_rng(_SEED), Counter[int]()
    for _ in range(bodies):
        body, headers = _damaged(rng, asked)
        connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
        try:
            connection.request("POST", f"/v2/models/{model}/infer", body, headers)
            response = connection.getresponse()
            response.read()
            statuses[response.status] += 1
        finally:
            connection.close()
    return statuses


def _damaged(rng: np.random.Generator, asked: Asked) -> tuple[bytes, dict[str, str]]:
    """A body that is cut, noise, changed in some bytes of its JSON or anywhere, or has a wrong length of its JSON."""
    body, headers = bytearray(asked.body), dict(asked.headers)
    head = int(headers[HEADER_LENGTH])
    kind = rng.integers(6)
    if kind == 0:
        body = body[: rng.integers(len(body))]
    elif kind == 1:
        body = bytearray(rng.bytes(int(rng.integers(1, 2000))))
    elif kind in (2, 3):
        for place in rng.integers(head if kind == 2 else len(body), size=rng.integers(1, 9)):
            body[place] = rng.integers(256)
    elif kind == 4:
        headers[HEADER_LENGTH] = str(int(rng.integers(-5, 2 * len(body))))
    else:
        start, end = sorted(rng.integers(head, size=2))
        body[start:end] = b""
        headers[HEADER_LENGTH] = str(head - int(end - start))
    return bytes(body), headers


@contextmanager
def _server(bundle: Path, *, queue: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server in a process of its own, ready: its address and the process.

    Raises:
        PcasegError: it ended before it was ready, or not as it should at the end.
    """
    options = f"--port 0 --threads 1 --drain-seconds 0 --model-name {MODEL} --queue {min(queue, 4096)}"
    command = [sys.executable, "-m", "pcaseg", "serve", str(bundle), *options.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # it is a pipe
        try:
            lines = iter(process.stdout.readline, "")
            said = next((line for line in lines if line.startswith("http://")), "")
            address = said.removeprefix("http://").partition(": ")[0]
            while address and not _ready(address):
                if process.poll() is not None:
                    break
                time.sleep(0.1)
            if not address or process.poll() is not None:
                raise PcasegError(f"{bundle}: the server ended before it was ready; run pcaseg serve on it to see why")
            yield address, process
        finally:
            process.terminate()
        if process.wait(_TIMEOUT_S) != 0:
            raise PcasegError(f"{bundle}: the server ended with {process.returncode}; its messages say why")


def _ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(reported(main))
