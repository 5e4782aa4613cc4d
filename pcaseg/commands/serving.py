"""`pcaseg serve` and `serve-repository`: a bundle as a server of its own, and for Triton Inference Server."""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pcaseg.arguments import EXIT_OK, number_from, some_path, up_to
from pcaseg.commands.options import add_backend, open_bundle, say_weights, typed_classes
from pcaseg.configs import MOST_CLASSES, Strategy
from pcaseg.errors import PcasegError
from pcaseg.paths import real_path
from pcaseg.text_files import read_lines

if TYPE_CHECKING:
    from pcaseg.serving.inputs import Names
    from pcaseg.serving.service import Sample

TOKEN_VARIABLE = "PCASEG_TOKEN"
SAMPLES = 6
"""Pictures that the page offers."""

_MIB = 1 << 20


def add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle of `pcaseg export`")
    command.add_argument("--host", default="127.0.0.1", help="address to serve (default: this machine alone)")
    command.add_argument("--port", type=up_to(65535, least=0), default=8000, help="0 for any free one (default: 8000)")
    command.add_argument("--classes", help='of requests that name none: "cat, grass"')
    command.add_argument(
        "--vocabulary",
        type=some_path,
        action="append",
        default=[],
        metavar="FILE",
        help="registers a vocabulary by the file's name; may be given several times",
    )
    command.add_argument("--model-name", help="in addresses (default: the bundle's name)")
    token = command.add_mutually_exclusive_group()
    token.add_argument("--token", help=f"that requests must bring; better in a file or in {TOKEN_VARIABLE}")
    token.add_argument("--token-file", type=some_path, metavar="FILE", help="whose first line is the token")
    command.add_argument("--body-mib", type=up_to(1024), default=16, help="largest body of a request (default: 16)")
    _add_limits(command)
    command.add_argument("--queue", type=up_to(4096), default=64, help="requests at once; more get 429 (default: 64)")
    command.add_argument(
        "--wait-ms", type=number_from(0, 1000), default=5, help="that an image waits for others (default: 5)"
    )
    command.add_argument(
        "--drain-seconds",
        type=number_from(0, 600),
        default=3,
        help="at SIGTERM: to answer on while not ready, so that balancers notice (default: 3)",
    )
    add_backend(command)
    command.set_defaults(run=run_serve)


def add_serve_repository(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle of `pcaseg export`")
    command.add_argument("--out", type=some_path, required=True, help="model repository to make, a folder")
    command.add_argument("--model-name", help="of the model (default: the bundle's name)")
    command.add_argument(
        "--gpu",
        choices=("cuda", "tensorrt"),
        help="the network as a model of its own for GPUs, on Triton's ONNX Runtime with this provider; untested",
    )
    command.add_argument(
        "--instances", type=up_to(64), default=1, help="processes that answer requests, each its own (default: 1)"
    )
    command.add_argument("--threads", type=up_to(1024), help="CPU threads of each instance")
    command.add_argument(
        "--environment", metavar="PATH", help="Python environment on the server, folder or .tar.gz (default: its own)"
    )
    _add_limits(command)
    command.set_defaults(run=run_serve_repository)


def _add_limits(command: argparse.ArgumentParser) -> None:
    command.add_argument("--pixels", type=up_to(1 << 28), default=1 << 24, help="of a request (default: 16777216)")
    command.add_argument("--most-classes", type=up_to(MOST_CLASSES), default=1024, help="of a request (default: 1024)")
    command.add_argument("--batch", type=up_to(64), default=8, help="images that run together at most (default: 8)")
    command.add_argument("--strategy", choices=get_args(Strategy), help="sliding: 5 passes, finer")


def run_serve(options: argparse.Namespace) -> int:
    from pcaseg.runtime.bundle import Bundle
    from pcaseg.serving.guard import is_loopback
    from pcaseg.serving.limits import Limits
    from pcaseg.serving.server import Server
    from pcaseg.serving.service import Offer

    token = _token(options)
    manifest = Bundle(options.bundle).manifest  # refused before anything is bound
    classes = None if options.classes is None else typed_classes(options.classes)
    limits = Limits(
        body_bytes=options.body_mib * _MIB,
        pixels=options.pixels,
        classes=options.most_classes,
        queue=options.queue,
        batch=options.batch,
        wait_ms=options.wait_ms,
    )
    offer = Offer(
        model=options.model_name or real_path(options.bundle).stem,
        open=lambda: open_bundle(options, window_batch=options.batch),
        vocabularies=_registered(options.vocabulary),
        classes=classes,
        samples=render_samples,
    )
    server = Server(
        offer,
        host=options.host,
        port=options.port,
        token=token,
        limits=limits,
        drain_seconds=options.drain_seconds,
    )
    say_weights(manifest.weights.kind)
    if token is None and not is_loopback(options.host):
        print(f"note: whoever reaches {server.url} may use it; --token-file asks for a token")
    print(f"{server.url}: page and server of model {offer.model}; Ctrl-C ends it", flush=True)
    server.serve_bundle()
    return EXIT_OK


def run_serve_repository(options: argparse.Namespace) -> int:
    from pcaseg.runtime.bundle import Bundle
    from pcaseg.serving.limits import Limits
    from pcaseg.serving.triton_repository import write_repository

    models = write_repository(
        options.bundle,
        options.out,
        model=options.model_name,
        gpu=options.gpu,
        instances=options.instances,
        strategy=options.strategy,
        threads=options.threads,
        environment=options.environment,
        limits=Limits(pixels=options.pixels, classes=options.most_classes, batch=options.batch),
    )
    print(f"{options.out}: {' and '.join(models)}; ask {models[0]}: tritonserver --model-repository {options.out}")
    say_weights(Bundle(options.bundle).manifest.weights.kind)
    return EXIT_OK


def render_samples() -> Sequence[Sample]:
    """Scenes as pictures that the page offers."""
    from PIL import Image

    from pcaseg.data.scenes import SHOWN_PX, render_scene
    from pcaseg.serving.service import Sample

    found = []
    for index in range(SAMPLES):
        scene = render_scene(index, split="evaluation", side=SHOWN_PX)
        file = io.BytesIO()
        Image.fromarray(scene.image).save(file, "PNG")
        ground = scene.present("background")
        found.append(
            Sample(
                f"Scene {index + 1}",
                file.getvalue(),
                classes=(*scene.present("pair"), *ground),
                parts=(*scene.present("part"), *ground),
            )
        )
    return found


def _registered(paths: Sequence[Path]) -> dict[str, Names]:
    from pcaseg.class_lists import class_list_names
    from pcaseg.runtime.vocabulary import resolve_vocabulary

    found: dict[str, Names] = {}
    for path in paths:
        if path.stem in found or path.stem in class_list_names():
            raise PcasegError(f"{path}: a vocabulary named {path.stem} is registered already; rename the file")
        found[path.stem] = resolve_vocabulary(path)
    return found


def _token(options: argparse.Namespace) -> str | None:
    """The token that requests must bring.

    Raises:
        PcasegError: it is empty or holds what no header can.
    """
    source, token = "--token", options.token
    if options.token_file is not None:
        source = str(options.token_file)
        lines = read_lines(options.token_file)
        token = lines[0][1] if lines else ""
    elif token is None:
        source, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE)
    if token is None:
        return None
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise PcasegError(f"{source}: holds no token; give one word of plain characters, such as 32 random ones")
    return str(token)
