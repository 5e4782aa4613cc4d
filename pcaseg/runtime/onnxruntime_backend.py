"""Runs a bundle with ONNX Runtime, on the CPU or an NVIDIA GPU."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import onnxruntime

from pcaseg.configs import check_choice
from pcaseg.errors import BundleError, PcasegError
from pcaseg.runtime.bundle import SEGMENTER_NAME, TEXT_ENCODER_NAME, Bundle
from pcaseg.runtime.onnx_backend import OnnxBackend
from pcaseg.runtime.onnx_providers import CPU, GraphRefusedError, open_provider

Arena = Literal["grow", "shrink", "off"]
"""What happens to the memory of intermediate results on the CPU: kept for the next image (as large as the largest so
far), given back after each image, or never pooled."""

_ONE_NODE = (  # an ONNX graph: y = x, one float32
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


class OnnxRuntimeBackend(OnnxBackend):
    """A `Backend` on ONNX Runtime."""

    def __init__(
        self, bundle: Bundle, *, device: str | None = None, threads: int | None = None, arena: Arena = "grow"
    ) -> None:
        """Loads the segmenter.

        Args:
            bundle: the bundle to run.
            device: see `pcaseg.runtime.onnx_providers.open_provider`; `cpu` by default. A GPU that cannot be used is an
                error, never a fallback.
            threads: CPU threads per operator; None leaves the choice to ONNX Runtime.
            arena: see `Arena`; `shrink` and `off` are for the CPU.

        Raises:
            PcasegError: an unknown device or arena, an arena of a GPU, a thread count below 1, or no usable GPU.
            BundleError: a file is not what the manifest says, or ONNX Runtime refuses the graph.
        """
        super().__init__(bundle, threads=threads)
        self._provider = open_provider(device or "cpu")
        check_choice(arena, Arena, what="arena")
        if arena != "grow" and self._provider.name != CPU:
            raise PcasegError(f"arena={arena!r}: is for device='cpu'; leave it out")
        self._arena = arena
        self._run_options = onnxruntime.RunOptions()
        if arena == "shrink":
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._load_segmenter()

    @classmethod
    def open(
        cls, bundle: Bundle, *, device: str | None = None, threads: int | None = None, arena: Arena = "grow"
    ) -> OnnxRuntimeBackend:
        """The constructor, as the table of backends calls it."""
        return cls(bundle, device=device, threads=threads, arena=arena)

    @property
    def name(self) -> str:
        """`onnxruntime-cpu`, `onnxruntime-cuda` or as the provider that runs is called."""
        return f"onnxruntime-{self._provider.short}"

    def _load_segmenter(self) -> None:
        self._segmenter = self._session(SEGMENTER_NAME, inputs=("image", "text"), outputs=self._bundle.outputs)
        self._check_sizes({value.name: value.shape for value in self._segmenter.get_inputs()})

    def _segment(self, outputs: tuple[str, ...], images: np.ndarray, text: np.ndarray) -> list[np.ndarray]:
        feeds = {"image": images, "text": text}
        result: list[np.ndarray] = self._segmenter.run(list(outputs), feeds, self._run_options)
        return result

    def _encode(self, tokens: np.ndarray) -> np.ndarray:
        result: np.ndarray = self._text_encoder.run(["text"], {"tokens": tokens}, self._run_options)[0]
        return result

    @cached_property
    def _text_encoder(self) -> onnxruntime.InferenceSession:
        return self._session(TEXT_ENCODER_NAME, inputs=("tokens",), outputs=("text",))

    def _session(self, name: str, *, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> onnxruntime.InferenceSession:
        """A session of one of the bundle's graphs, on the chosen provider and no other."""
        data = self._bundle.read(name)
        options = onnxruntime.SessionOptions()
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        options.enable_cpu_mem_arena = self._arena != "off"
        shown = self._bundle.path / name
        try:
            session = self._provider.session(data, options)
        except GraphRefusedError as error:
            raise BundleError(
                f"{shown}: ONNX Runtime {onnxruntime.__version__} refuses the graph ({error}); export the bundle "
                "anew or use the version that the manifest names"
            ) from error
        found = tuple(sorted(i.name for i in session.get_inputs())), tuple(o.name for o in session.get_outputs())
        if found != (tuple(sorted(inputs)), outputs):
            raise BundleError(
                f"{shown}: the graph maps {found[0]} to {found[1]}, not {inputs} to {outputs}; export the bundle anew"
            )
        return session


def start_provider(device: str) -> str:
    """Starts what a device needs of ONNX Runtime on a graph of one node, and gives ONNX Runtime's version.

    Raises:
        PcasegError: an unknown device, or one that cannot be used.
    """
    provider = open_provider(device)
    try:
        provider.session(_ONE_NODE, onnxruntime.SessionOptions())
    except GraphRefusedError as error:
        raise PcasegError(f"ONNX Runtime {onnxruntime.__version__} cannot start {provider.name} ({error})") from error
    return str(onnxruntime.__version__)
