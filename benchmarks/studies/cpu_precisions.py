"""Lower precision on a CPU: `python -m pcaseg.benchmarks.studies.cpu_precisions --out rows.json`.

From pixels to labels: the eager model, the folded one in PyTorch, ONNX Runtime and OpenVINO in float32; PyTorch and
OpenVINO in bfloat16, where the processor multiplies in it; and both runtimes in int8, on the graph that TensorRT would
build its engine from. With `tiny` each is held to the true labels of its scenes; then all label one image in turn,
round after round.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from pcaseg.arguments import CORES, Parser, rows_file, up_to
from pcaseg.benchmarks.implementations import Setting, open_implementation
from pcaseg.benchmarks.intervals import check_pairs
from pcaseg.benchmarks.studies.quantised import write_quantised
from pcaseg.configs import presets
from pcaseg.data.folders import LabelledFolder
from pcaseg.data.scenes import render_scene
from pcaseg.environment import multiplies_bfloat16, write_rows
from pcaseg.errors import reported
from pcaseg.evaluation.agreement import noise, timed
from pcaseg.evaluation.gates import MIOU_DIFFERENCES
from pcaseg.evaluation.labelled import labelled_miou
from pcaseg.evaluation.labelled_scenes import COUNT, NAMES, write_scenes
from pcaseg.export.bundle import write_bundle
from pcaseg.export.tensorrt.quantize import MOST_IMAGES, Calibration
from pcaseg.model.checkpoint import open_model
from pcaseg.model.network import PCASeg
from pcaseg.runtime.backends import Backend, open_backend
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.segmenter import Segmenter

SCENES_OF = "tiny"
"""The preset whose weights know the scenes."""

CLASSES, SIZE = 20, (480, 640)
"""Of another preset: names of the scenes, and an image of noise."""

CALIBRATION_SEED = 7
"""Other scenes than the labelled ones."""


@dataclass
class PrecisionRow:
    """One backend in one precision.

    Attributes:
        backend: `eager`, `folded`, `onnxruntime` or `openvino`.
        precision: `float32`, `bfloat16` or `int8`.
        miou: on the scenes, percent; None with weights that do not know them.
        gate: by how many points it may differ from the eager model's; None for that, and where there is no mIoU.
        same_label: share of the timed image's pixels with the eager model's label.
        seconds: of each round, from pixels to labels.
    """

    backend: str
    precision: str
    miou: float | None
    gate: float | None
    same_label: float
    seconds: list[float] = field(default_factory=list)


def open_backends(
    model: PCASeg, bundle: Bundle, calibration: Calibration, folder: Path
) -> dict[tuple[str, str], Backend]:
    """All that run here, by runtime and precision, the eager model first.

    Args:
        model: the eager one.
        bundle: of it, in float32, ending in logits.
        calibration: images for int8.
        folder: an empty one, for the int8 graph.
    """
    threads = torch.get_num_threads()
    found: dict[tuple[str, str], Backend] = {}

    def add(name: str, precision: str, *, source: Bundle = bundle) -> None:
        setting = Setting(model, source, "float32" if precision == "int8" else precision, "cpu", threads)
        found[name.removesuffix("-cpu"), precision] = open_implementation(name, setting).backend

    quantised = write_quantised(bundle, "int8", calibration, folder / "int8.pcaseg")
    half, openvino = multiplies_bfloat16(), importlib.util.find_spec("openvino") is not None
    for name in ("eager", "folded", "onnxruntime-cpu", *(("openvino-cpu",) if openvino else ())):
        add(name, "float32")
    if half:
        add("folded", "bfloat16")
    add("onnxruntime-cpu", "int8", source=quantised)
    if half and openvino:
        options = {"precision_hint": "bfloat16"}
        found["openvino", "bfloat16"] = open_backend("openvino", bundle, threads=threads, options=options)
    if openvino:
        add("openvino-cpu", "int8", source=quantised)
    return found


@torch.no_grad()
def measure(
    backends: dict[tuple[str, str], Backend],
    names: Sequence[str],
    image: np.ndarray,
    labelled: LabelledFolder | None,
    *,
    rounds: int,
    progress: bool = False,
) -> list[PrecisionRow]:
    """Scores every backend on the labelled images, if any, and times all on one image in turn.

    Raises:
        PcasegError: fewer than two rounds.
    """
    check_pairs("rounds", rounds)
    rows, calls, expected = [], [], None
    for (name, precision), backend in tqdm(backends.items(), desc="score", unit="backend", disable=not progress):
        segmenter = Segmenter(backend, strategy="single")
        segmenter.set_vocabulary(names)
        labels = segmenter(image).labels
        expected = labels if expected is None else expected
        miou = labelled_miou(_labeller(segmenter), labelled) if labelled else None
        gate = MIOU_DIFFERENCES[precision] if labelled and name != "eager" else None
        rows.append(PrecisionRow(name, precision, miou, gate, float((labels == expected).mean())))
        calls.append(partial(segmenter, image))
    for _ in tqdm(range(rounds), desc="time", unit="round", disable=not progress):
        for row, call in zip(rows, calls, strict=True):
            row.seconds.append(timed(call)[0])
    return rows


def _labeller(segmenter: Segmenter) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: segmenter(pixels).labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows; returns 0."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.cpu_precisions", description=__doc__)
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file of rows")
    parser.add_argument("--preset", choices=presets(), default=SCENES_OF)
    parser.add_argument("--scenes", type=up_to(COUNT), default=COUNT, help="labelled, of tiny alone")
    parser.add_argument(
        "--calibration", type=up_to(MOST_IMAGES), default=24, help="scenes that int8 is calibrated with"
    )
    parser.add_argument("--rounds", type=up_to(1000, least=2), default=5)
    parser.add_argument("--threads", type=up_to(CORES), default=CORES)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    known = options.preset == SCENES_OF
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        for part in ("calibration", "scenes"):
            (folder / part).mkdir()
        for index in range(options.calibration):
            scene = render_scene(index, seed=CALIBRATION_SEED)
            Image.fromarray(scene.image).save(folder / "calibration" / f"{index:04}.png")
        model = open_model(options.preset)
        write_bundle(model, folder / "b.pcaseg")
        calibration = Calibration.read(folder / "calibration")
        backends = open_backends(model, Bundle(folder / "b.pcaseg"), calibration, folder)
        labelled = write_scenes(folder / "scenes", count=options.scenes) if known else None
        names = NAMES if known else NAMES[:CLASSES]
        image = render_scene(0, split="evaluation").image if known else noise(0, *SIZE)
        rows = measure(backends, names, image, labelled, rounds=options.rounds, progress=True)
    subject = {"preset": options.preset, "threads": options.threads, "classes": len(names)}
    subject |= {"image": list(image.shape[:2]), "scenes": options.scenes if known else None}
    write_rows(options.out, rows, **subject)
    print(f"{options.out}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
