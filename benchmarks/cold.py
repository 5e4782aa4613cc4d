"""A cold start, measured in a process of its own: what a robot pays when it is switched on.

`cold_start` starts `python -m pcaseg.benchmarks.cold`, which imports, loads, embeds the names and segments one image.
A backend on ONNX Runtime or TensorRT never imports torch there, as on a robot.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pcaseg.arguments import Parser
from pcaseg.benchmarks.rows import Cold
from pcaseg.class_lists import first_names
from pcaseg.environment import gpu_mib, peak_host_mib
from pcaseg.errors import PcasegError
from pcaseg.runtime.backends import Backend
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.segmenter import Segmenter

WITHOUT_TORCH = ("onnxruntime-", "openvino-", "tensorrt")
"""How the names of backends begin that need no torch."""


def cold_start(
    backend: str, bundle: Path, image: Path, *, classes: int, precision: str, device: str, threads: int, model: str
) -> Cold:
    """Measures one backend's start.

    Args:
        backend: one of `pcaseg.benchmarks.implementations.IMPLEMENTATIONS`.
        bundle, image: files.
        model: model file, or empty for the bundle's own source.

    Raises:
        PcasegError: the process failed; the message ends with its last line.
    """
    options = dict(backend=backend, bundle=bundle, image=image, classes=classes, precision=precision)
    options |= dict(device=device, threads=threads, model=model, started=time.time())
    words = [f"--{name}={value}" for name, value in options.items()]
    run = subprocess.run([sys.executable, "-m", "pcaseg.benchmarks.cold", *words], capture_output=True, text=True)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        raise PcasegError(f"{backend}: a start in a process of its own failed ({last})")
    return Cold(**json.loads(run.stdout.splitlines()[-1]))


def measure(
    backend: str,
    bundle: Path,
    image: Path,
    *,
    classes: int,
    precision: str,
    device: str,
    threads: int,
    model: str,
    started: float,
) -> Cold:
    """Measures within the process; `started` is the time (seconds of `time.time`) when it was asked for."""
    opened_bundle = Bundle(bundle)
    if not backend.startswith(WITHOUT_TORCH):
        import pcaseg.benchmarks.implementations  # noqa: F401 - counted as import
    imported = time.time()
    opened = _open(backend, opened_bundle, precision=precision, device=device, threads=threads, model=model)
    segmenter = Segmenter(opened)
    loaded = time.time()
    segmenter.set_vocabulary(first_names(classes))
    named = time.time()
    segmenter(image)
    done = time.time()
    host = peak_host_mib()
    on_device = None if device == "cpu" else _device_mib(backend, device)
    return Cold(imported - started, loaded - imported, named - loaded, done - named, host, on_device)


def _device_mib(backend: str, device: str) -> float | None:
    if backend.startswith(WITHOUT_TORCH):
        return gpu_mib()
    from pcaseg.benchmarks.device import peak_device_mib

    return peak_device_mib(device)


def _open(backend: str, bundle: Bundle, *, precision: str, device: str, threads: int, model: str) -> Backend:
    if backend.startswith("onnxruntime-"):
        from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend

        return OnnxRuntimeBackend(bundle, device=backend.removeprefix("onnxruntime-"), threads=threads)
    if backend == "openvino-cpu":
        from pcaseg.runtime.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(bundle, threads=threads)
    if backend == "tensorrt":
        from pcaseg.export.tensorrt.refit import open_tensorrt

        return open_tensorrt(bundle, device=device)
    from pcaseg.benchmarks.implementations import Setting, open_implementation
    from pcaseg.export.torch_backend import source_model
    from pcaseg.model.checkpoint import open_model

    eager = open_model(model, shortlist=bundle.manifest.shortlist) if model else source_model(bundle)
    return open_implementation(backend, Setting(eager, bundle, precision, device, threads)).backend


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures this process and prints a line of JSON."""
    parser = Parser(prog="python -m pcaseg.benchmarks.cold", description=__doc__)
    for name in ("backend", "precision", "device", "model"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("bundle", "image"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    for name in ("classes", "threads"):
        parser.add_argument(f"--{name}", required=True, type=int)
    parser.add_argument("--started", required=True, type=float)
    print(json.dumps(asdict(measure(**vars(parser.parse_args(arguments))))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
