"""Runs a bundle with OpenVINO, on a CPU or on Intel's GPUs and NPUs."""

from __future__ import annotations

import sys
import threading
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from pcaseg.configs import check_choice
from pcaseg.errors import BundleError, PcasegError, one_line
from pcaseg.paths import exists, is_folder
from pcaseg.runtime.bundle import SEGMENTER_NAME, TEXT_ENCODER_NAME, Bundle
from pcaseg.runtime.onnx_backend import OnnxBackend

# OpenVINO reports each import to its makers and keeps a client id in the home folder; without that package it does not.
_SILENCED = "openvino_telemetry"
sys.modules.setdefault(_SILENCED, None)  # type: ignore[arg-type]
import openvino  # noqa: E402

if sys.modules[_SILENCED] is None:
    del sys.modules[_SILENCED]

PrecisionHint = Literal["float32", "float16", "bfloat16"]
"""What the segmenter is multiplied in where the hardware has it. OpenVINO's own default is the fastest it finds, which
on a CPU with bfloat16 units is bfloat16."""

_HINTS = {"float32": ("f32", "FP32"), "float16": ("f16", "FP16"), "bfloat16": ("bf16", "BF16")}


class OpenVinoBackend(OnnxBackend):
    """A `Backend` on OpenVINO. Threads may call it at once: each has an inference request of its own."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        threads: int | None = None,
        precision_hint: PrecisionHint = "float32",
        model_cache: str | Path | None = None,
    ) -> None:
        """Compiles the segmenter.

        Args:
            bundle: the bundle to run.
            device: `cpu` (default), or another of OpenVINO's devices on this machine, such as `gpu`, `gpu.1`, `npu`.
            threads: CPU threads; None leaves the choice, and that of NUMA nodes, to OpenVINO.
            precision_hint: see `PrecisionHint`; the text encoder always runs in float32.
            model_cache: folder in which OpenVINO keeps compiled graphs, so that the next start is quick; its files
                fit one machine and one version of OpenVINO, which compiles anew for another.

        Raises:
            PcasegError: an unknown device, hint or folder, a hint that the device does not compute in, or a thread
                count below 1.
            BundleError: a file is not what the manifest says, or OpenVINO refuses the graph.
        """
        super().__init__(bundle, threads=threads)
        self._core = openvino.Core()
        self._device = _device_of(self._core, device or "cpu")
        check_choice(precision_hint, PrecisionHint, what="precision_hint")
        self._hint = precision_hint
        _check_hint(self._core, self._device, precision_hint)
        if model_cache is not None:
            if exists(model_cache) and not is_folder(model_cache):
                raise PcasegError(f"{model_cache}: is no folder; give one for compiled graphs")
            self._core.set_property({"CACHE_DIR": str(model_cache)})
        self._own = threading.local()  # each thread's inference requests
        self._segmenter = self._compile(SEGMENTER_NAME, ("image", "text"), bundle.outputs, hint=precision_hint)
        self._check_sizes({_name(one, ("image", "text")): _shape(one.partial_shape) for one in self._segmenter.inputs})

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        device: str | None = None,
        threads: int | None = None,
        precision_hint: PrecisionHint = "float32",
        model_cache: str | Path | None = None,
    ) -> OpenVinoBackend:
        """The constructor, as the table of backends calls it."""
        return cls(bundle, device=device, threads=threads, precision_hint=precision_hint, model_cache=model_cache)

    @property
    def name(self) -> str:
        """`openvino-cpu`, or with another hint than float32 `openvino-cpu-bfloat16`."""
        return f"openvino-{self._device.lower()}" + ("" if self._hint == "float32" else f"-{self._hint}")

    def _segment(self, outputs: tuple[str, ...], images: np.ndarray, text: np.ndarray) -> list[np.ndarray]:
        found = self._request("segmenter", self._segmenter).infer({"image": images, "text": text})
        return [found[name] for name in outputs]

    def _encode(self, tokens: np.ndarray) -> np.ndarray:
        result: np.ndarray = self._request("text", self._text_encoder).infer({"tokens": tokens})["text"]
        return result

    def _request(self, kind: str, compiled: openvino.CompiledModel) -> openvino.InferRequest:
        """This thread's request; its outputs are copied, so they outlive the next call."""
        if not hasattr(self._own, kind):
            setattr(self._own, kind, compiled.create_infer_request())
        request: openvino.InferRequest = getattr(self._own, kind)
        return request

    @cached_property
    def _text_encoder(self) -> openvino.CompiledModel:
        return self._compile(TEXT_ENCODER_NAME, ("tokens",), ("text",), hint="float32")

    def _compile(
        self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], *, hint: PrecisionHint
    ) -> openvino.CompiledModel:
        """One of the bundle's graphs, compiled for the device and no other."""
        data, shown = self._bundle.read(name), self._bundle.path / name
        options: dict[str, object] = {"INFERENCE_PRECISION_HINT": _HINTS[hint][0], "PERFORMANCE_HINT": "LATENCY"}
        if self._threads is not None:
            options["INFERENCE_NUM_THREADS"] = self._threads
        try:
            compiled = self._core.compile_model(self._core.read_model(data), self._device, options)
        except Exception as error:  # OpenVINO raises RuntimeError and its own kinds
            raise BundleError(
                f"{shown}: OpenVINO {openvino.__version__} refuses the graph ({one_line(error, most=300)}); export the "
                "bundle anew or run it with --backend onnxruntime"
            ) from error
        given = tuple(sorted(_name(one, inputs) for one in compiled.inputs))
        made = tuple(_name(one, outputs) for one in compiled.outputs)
        if (given, made) != (tuple(sorted(inputs)), outputs):
            raise BundleError(
                f"{shown}: the graph maps {given} to {made}, not {inputs} to {outputs}; export the bundle anew"
            )
        return compiled


def start_device(device: str) -> str:
    """Looks for a device, and gives OpenVINO's version and the device's own name.

    Raises:
        PcasegError: OpenVINO finds no such device.
    """
    core = openvino.Core()
    name = core.get_property(_device_of(core, device), "FULL_DEVICE_NAME")
    return f"{openvino.__version__.partition('-')[0]}, {name}"


def _device_of(core: openvino.Core, device: str) -> str:
    """OpenVINO's name of a device that is there."""
    there: list[str] = core.available_devices
    wanted = device.upper()
    if wanted not in there and not any(one.startswith(f"{wanted}.") for one in there):
        raise PcasegError(
            f"device={device!r}: OpenVINO {openvino.__version__.partition('-')[0]} finds no such device; choose one of "
            f"{', '.join(one.lower() for one in there)}"
        )
    return wanted


def _check_hint(core: openvino.Core, device: str, hint: PrecisionHint) -> None:
    """Refuses what the device would quietly compute in something else."""
    able: list[str] = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if hint != "float32" and _HINTS[hint][1] not in able:
        raise PcasegError(f"precision_hint={hint!r}: {device.lower()} does not compute in it; leave it out")


def _name(end: openvino.ConstOutput, wanted: tuple[str, ...]) -> str:
    """An input's or output's name: of several, the one that is looked for."""
    names: set[str] = end.names
    return next((name for name in wanted if name in names), min(names, default="?"))


def _shape(partial: openvino.PartialShape) -> list[object]:
    names = ("N", "H", "W", "C")
    return [size.get_length() if size.is_static else name for size, name in zip(partial, names, strict=False)]
