"""Accuracy in eight bits without a GPU: `python -m pcaseg.benchmarks.studies.quantised BUNDLE --precision int8`.

ONNX Runtime runs on the CPU the very graph that TensorRT would build its engine from: numbers are rounded at the same
places to the same values, and multiplied in float32.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from pcaseg.arguments import EXIT_FAILED, EXIT_OK, Parser, some_path
from pcaseg.configs import MAX_CLASSES
from pcaseg.errors import PcasegError, reported
from pcaseg.evaluation.agreement import check_labelled
from pcaseg.evaluation.check import CheckReport, refuse_foreign_report
from pcaseg.evaluation.gates import labelled_gate
from pcaseg.evaluation.labelled_scenes import SOURCE, open_labelled
from pcaseg.export.tensorrt.graphs import derive_graph
from pcaseg.export.tensorrt.quantize import Calibration, check_quantisable, quantize
from pcaseg.export.torch_backend import source_model
from pcaseg.files import sha256_of
from pcaseg.runtime.bundle import MANIFEST_NAME, SEGMENTER_NAME, Bundle
from pcaseg.runtime.engines import EIGHT_BITS, EnginePrecision
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend


def main(arguments: Sequence[str] | None = None) -> int:
    """Quantises, compares mIoU with the eager model's, and writes a report as of `pcaseg check`; 1 if it is too far."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.quantised", description=__doc__)
    parser.add_argument("bundle", type=Path, help="of `pcaseg export`, trained, logits in float32")
    parser.add_argument("--precision", choices=EIGHT_BITS, required=True)
    parser.add_argument("--calibration", type=some_path, required=True, metavar="FOLDER", help="images")
    parser.add_argument("--labelled", default=SOURCE, help="as of pcaseg check, at most 256 classes (default: scenes)")
    parser.add_argument("--json", type=some_path, required=True, help="report to write")
    options = parser.parse_args(arguments)
    refuse_foreign_report(options.json)
    bundle, precision = Bundle(options.bundle), options.precision
    bundle.verify()
    check_quantisable(bundle, precision)
    bound = labelled_gate(precision, bundle.manifest.weights.kind).get("miou_difference")
    if bound is None:
        raise PcasegError(f"{bundle.path}: its weights were never trained, so mIoU says nothing; export trained ones")
    calibration, model = Calibration.read(options.calibration), source_model(bundle)
    with tempfile.TemporaryDirectory() as folder, open_labelled(options.labelled) as labelled:
        assert labelled is not None  # a source is always named
        if len(labelled.names) > MAX_CLASSES:
            raise PcasegError(f"{options.labelled}: {len(labelled.names)} classes; take a set of at most {MAX_CLASSES}")
        backend = OnnxRuntimeBackend(write_quantised(bundle, precision, calibration, Path(folder) / "b.pcaseg"))
        scored = check_labelled(model, backend, labelled, "single", bound, progress=True)
        CheckReport.of(bundle, backend, [], scored, precision=precision, gate={}).write(options.json)
    print(scored.verdict())
    return EXIT_OK if scored.passed else EXIT_FAILED


def write_quantised(bundle: Bundle, precision: EnginePrecision, calibration: Calibration, path: Path) -> Bundle:
    """A bundle for ONNX Runtime whose segmenter is the main graph of TensorRT's engine, quantised.

    Raises:
        PcasegError: as `pcaseg.export.tensorrt.quantize.quantize`.
    """
    graph = derive_graph(onnx.load_from_string(bundle.read(SEGMENTER_NAME)), "main", source=str(bundle.path))
    data = quantize(graph, "main", bundle, calibration, precision=precision, progress=True).SerializeToString()
    path.mkdir()
    files = dict(bundle.manifest.files)
    for name in files:
        (path / name).write_bytes(data if name == SEGMENTER_NAME else bundle.read(name))
    files[SEGMENTER_NAME] = replace(files[SEGMENTER_NAME], sha256=sha256_of(path / SEGMENTER_NAME), bytes=len(data))
    (path / MANIFEST_NAME).write_text(replace(bundle.manifest, files=files).to_json(), encoding="utf-8")
    return Bundle(path)


if __name__ == "__main__":
    sys.exit(reported(main))
