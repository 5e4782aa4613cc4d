"""Eight bits by calibration: scales from the user's own images, written into the graph by quantising and dequantising
nodes.

ONNX Runtime's quantiser does it: symmetric, weights per output channel, activations per tensor, at products with
constant weights, and for int8 at convolutions too, but not at the patch embedding: pixels fill eight bits, of which a
symmetric scale keeps seven, and OpenVINO 2026.4 computes the quantised one wrongly. What else there is stays float32.
Never a default: it is worth its error only where `pcaseg check` says so.

For fp8 (E4M3) the largest absolute value of a tensor becomes 448, where for int8 it becomes 127; the quantiser's own
scales for fp8, made for normally distributed values, would clip the outliers of transformers.
"""

from __future__ import annotations

import hashlib
import logging
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tqdm import tqdm

from pcaseg.class_lists import class_list
from pcaseg.configs import MAX_CLASSES
from pcaseg.errors import EngineError, PcasegError, first_line
from pcaseg.image_files import list_images
from pcaseg.images import read_image
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.engines import EnginePrecision, GraphRole
from pcaseg.runtime.onnxruntime_backend import OnnxRuntimeBackend
from pcaseg.runtime.windows import prepare_windows

MOST_IMAGES = 64
"""More change the scales little and take long on a CPU."""

CLASSES: dict[GraphRole, int] = {"main": 20, "large": MAX_CLASSES + 1}
"""The first names of a class list that the graph is calibrated with."""

QUANTISED: dict[EnginePrecision, tuple[str, ...]] = {"int8": ("Conv", "MatMul", "Gemm"), "fp8": ("MatMul", "Gemm")}
"""TensorRT has fp8 for matrix products."""

FP8_OPSET = 19
"""The first whose quantising nodes know float8."""

_LARGEST = {"int8": 127, "fp8": 448}


@dataclass(frozen=True)
class Calibration:
    """Images to calibrate with; `sha256` is over their contents and order."""

    images: tuple[Path, ...]
    sha256: str

    @classmethod
    def read(cls, folder: Path) -> Calibration:
        """The images of a folder, the first `MOST_IMAGES` by name.

        Raises:
            ImageError: no such folder, or no image in it.
        """
        images = list_images(folder)[:MOST_IMAGES]
        digest = hashlib.sha256()
        for path in images:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return cls(tuple(images), digest.hexdigest())


def check_quantisable(bundle: Bundle, precision: EnginePrecision) -> None:
    """Refuses a bundle whose graphs cannot be quantised.

    Raises:
        PcasegError: it is not of float32 logits, or for fp8 of too old an opset.
    """
    manifest = bundle.manifest
    if manifest.precision != "float32" or manifest.graph != "logits":
        raise PcasegError(
            f"{bundle.path}: {precision} is made of a float32 bundle of logits, not of {manifest.precision} "
            f"{manifest.graph}; export such a one"
        )
    if precision == "fp8" and manifest.opset < FP8_OPSET:
        raise PcasegError(
            f"{bundle.path}: fp8 needs a graph of opset {FP8_OPSET} or newer, not {manifest.opset}; export it with "
            f"--opset {FP8_OPSET}"
        )


def quantize(
    graph: onnx.ModelProto,
    role: GraphRole,
    bundle: Bundle,
    calibration: Calibration,
    *,
    precision: EnginePrecision,
    progress: bool,
) -> onnx.ModelProto:
    """A graph of `derive_graph` with quantised products.

    Args:
        graph: in float32.
        role: `main` or `large`.
        bundle: that it is of; its text encoder runs on the CPU.
        calibration: see there.
        precision: `int8` or `fp8`, what the products compute in.
        progress: whether to show it on standard error.

    Raises:
        PcasegError: as `check_quantisable`.
        EngineError: the quantiser fails.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    check_quantisable(bundle, precision)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "quantised.onnx"
        onnx.save(graph, source)
        level = logging.root.level
        logging.root.setLevel(logging.ERROR)  # it warns of a missing preprocessing that graphs of pcaseg do not need
        try:
            quantize_static(
                str(source),
                str(target),
                _reader(bundle, role, calibration, progress=progress),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=list(QUANTISED[precision]),
                nodes_to_exclude=[node.name for node in graph.graph.node if "image" in node.input],
                extra_options={
                    "ActivationSymmetric": True,  # TensorRT takes zero points of 0 alone
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "MatMulConstBOnly": True,
                    "AddQDQPairToWeight": precision == "fp8",  # weights stay floats, for TensorRT to round
                },
            )
        except PcasegError:
            raise
        except Exception as error:  # the quantiser's exceptions have no common base
            reason = first_line(error)
            raise EngineError(f"{bundle.path}: ONNX Runtime cannot quantise the graph ({reason}); take fp16") from error
        finally:
            logging.root.setLevel(level)
        quantised = onnx.load(target)
    if precision == "fp8":
        _to_float8(quantised.graph)
    return quantised


def _to_float8(graph: onnx.GraphProto) -> None:
    """Lets the quantising nodes of an int8 graph round to float8 (E4M3) of the same range."""
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales, zeros = ({node.input[k] for node in pairs} for k in (1, 2))
    eight = {node.output[0] for node in pairs if node.op_type == "QuantizeLinear"}
    for tensor in graph.initializer:
        if tensor.name in scales:
            scale = onnx.numpy_helper.to_array(tensor) * np.float32(_LARGEST["int8"] / _LARGEST["fp8"])
            tensor.CopyFrom(onnx.numpy_helper.from_array(scale, tensor.name))
        elif tensor.name in zeros:
            count = math.prod(tensor.dims)
            tensor.CopyFrom(
                onnx.TensorProto(
                    name=tensor.name,
                    dims=tensor.dims,
                    data_type=onnx.TensorProto.FLOAT8E4M3FN,
                    raw_data=bytes(count),
                )
            )
    for value in graph.value_info:
        if value.name in eight:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT8E4M3FN


def _reader(bundle: Bundle, role: GraphRole, calibration: Calibration, *, progress: bool) -> Any:
    """Reader that ONNX Runtime asks for one input after the other."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = _feeds(bundle, role, calibration, progress=progress)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    return Reader()


def _feeds(
    bundle: Bundle, role: GraphRole, calibration: Calibration, *, progress: bool
) -> Iterator[dict[str, np.ndarray]]:
    manifest = bundle.manifest
    text = OnnxRuntimeBackend(bundle).encode_text(class_list("ade20k_847")[: CLASSES[role]])
    for path in tqdm(calibration.images, desc=f"calibrate {role}", unit="image", disable=not progress):
        windows = prepare_windows(read_image(path), "single", image_px=manifest.image.size_px, sliding=manifest.sliding)
        yield {"image": windows, "text": text}
