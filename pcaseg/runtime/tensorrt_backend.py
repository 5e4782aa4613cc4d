"""Runs a bundle's engines of TensorRT or TensorRT-RTX on an NVIDIA GPU, without PyTorch and without ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pcaseg.configs import most_kept
from pcaseg.errors import EngineError, PcasegError
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.cuda import DeviceArray, Driver, fetch_array, open_driver
from pcaseg.runtime.engines import (
    TITLES,
    EngineKey,
    EnginePrecision,
    EngineRuntime,
    GraphRole,
    Machine,
    Shape,
    StoredEngine,
    build_command,
    find_engines,
)
from pcaseg.runtime.manifest import Manifest
from pcaseg.runtime.shortlist import all_logits, check_kept
from pcaseg.runtime.tensorrt_api import capture_log, deserialize, import_tensorrt, load_plugin_library
from pcaseg.runtime.tensorrt_engine import Array, Engine
from pcaseg.runtime.tensorrt_kernels import KERNELS_SUFFIX, open_kernels
from pcaseg.runtime.text import embed_names, embed_prompts, open_tokenizer
from pcaseg.runtime.tokenizer import Tokenizer

Refit = Callable[[Any, EngineKey, Bundle, Any], None]
"""Puts the weights into a weight-stripped engine: (deserialised engine, its key, bundle, TensorRT's log)."""


class TensorRTBackend:
    """A `Backend` on TensorRT. Engines are opened at the first call that needs them, and never built here.

    A vocabulary of more than 256 classes, or of more than the shortlist has, runs on the bundle's `large` engine, any
    other on its `main` one; of several that cover a call, the one that covers least beyond it. The lanes of an engine
    are safe to use from threads.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        contexts: int = 1,
        precision: EnginePrecision | None = None,
        plugin_library: Path | None = None,
        refit: Refit | None = None,
        runtime: EngineRuntime = "tensorrt",
        driver: Driver | None = None,
    ) -> None:
        """Finds the main engine.

        Args:
            bundle: with engines of `pcaseg build`.
            device: `cuda` (default) or `cuda:N`.
            contexts: calls that run at once, each with its own memory.
            precision: of the segmenter's engines; None for the bundle's own, `int8` or `fp8` for quantised ones.
            plugin_library: the C++ plugins, for engines that were built with them.
            refit: for engines that were built without weights; `pcaseg.export.tensorrt.refit` is such a one.
            runtime: library whose engines they are.
            driver: of the GPU; None for the real one.

        Raises:
            MissingDependencyError: that library or cuda-python is not installed.
            EngineError: no GPU, or no engine that fits this machine; the message names what differs.
            PcasegError: an unknown device, or fewer than one context.
        """
        if contexts < 1:
            raise PcasegError(f"contexts={contexts}: give 1 or more")
        self._bundle, self._contexts, self._precision, self._refit = bundle, contexts, precision, refit
        self._trt = import_tensorrt(runtime)
        self._driver: Driver = driver or open_driver(device)
        gpu = self._driver.gpu
        library = None if plugin_library is None else load_plugin_library(plugin_library)
        self.machine = Machine(self._trt.__version__, gpu.name, gpu.compute_capability, library, runtime)
        self.log: Any = capture_log(self._trt)
        self._open: dict[str, Engine] = {}
        self._lock = threading.RLock()  # of what is found and opened
        self._found: dict[GraphRole, list[StoredEngine]] = {}
        self._stored("main")

    @property
    def name(self) -> str:
        """`tensorrt-fp16`, `tensorrt-rtx-fp16` and so on: what the main engine was built in."""
        key = self._found["main"][0].sidecar.key
        return f"{TITLES[key.runtime].lower()}-{key.precision}"

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    def encode_text(self, names: Sequence[str]) -> np.ndarray:
        """Embeds class names, each in the bundle's prompt: `(T, D)` float32, unit norm.

        Raises:
            EngineError: no engine of the text encoder fits; a vocabulary file of `pcaseg vocab` needs none.
            BundleError: the tokenizer is missing or not usable.
        """
        encode, most = self._encoder()
        return embed_names(self._bundle, self._tokenizer, names, encode, most=most)

    def encode_prompts(self, prompts: Sequence[str]) -> np.ndarray:
        """Embeds whole prompts, see `pcaseg.runtime.backends.PromptBackend`; errors as of `encode_text`."""
        encode, most = self._encoder()
        return embed_prompts(self._bundle, self._tokenizer, prompts, encode, most=most)

    def logits(self, images: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Windows `(N, 3, R, R)` float32 0..255 and text `(T, D)` float32 to logits `(N, T, h, w)` float32.

        Raises:
            EngineError: no engine covers the call, or it fails.
        """
        if self.manifest.shortlist is not None:
            return all_logits(*self.kept_logits(images, text), len(text))
        return self._run(("logits",), images, text)["logits"]

    def kept_logits(self, images: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `logits`, of the kept classes alone; see `pcaseg.runtime.backends.ShortlistBackend`.

        Raises:
            EngineError: as `logits`.
            BundleError: the engine returns other sizes, or indices of no class.
        """
        found = self._run(("logits", "classes"), images, text)
        shortlist = self.manifest.shortlist
        check_kept(found["logits"], found["classes"], windows=len(images), classes_of=len(text), shortlist=shortlist)
        return found["logits"], found["classes"]

    def labels(self, images: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frames `(N, H, W, 3)` uint8 RGB and text `(T, D)` to labels int32 and confidence float32, `(N, H, W)`.

        Raises:
            EngineError: as `logits`.
        """
        found = self._run(("labels", "confidence"), images, text)
        return found["labels"], found["confidence"]

    def run_device(self, images: Array, text: Array) -> dict[str, DeviceArray]:
        """Runs on arrays that are on the GPU already, and leaves the outputs there.

        Args:
            images: as `logits` or `labels` takes them, or the same as anything with `__cuda_array_interface__`,
                contiguous, of the same type; work on the stream that it names is waited for.
            text: likewise.

        Returns:
            Outputs by name. They are complete, and stay valid until the next call.

        Raises:
            EngineError: as `logits`, or the backend has several contexts, whose outputs would overwrite each other.
        """
        if self._contexts > 1:
            raise EngineError(f"contexts={self._contexts}: outputs on the GPU are kept by one context; open with 1")
        with self._engine_for(images, text).lane() as lane:
            return lane.run_device({"image": images, "text": text})

    @property
    def on_gpu(self) -> bool:
        """True: TensorRT runs nowhere else."""
        return True

    def fetch(self, array: Any) -> np.ndarray:
        """A copy of an array on the GPU, see `pcaseg.runtime.arrays.GpuBackend`.

        Raises:
            PcasegError: as `pcaseg.runtime.cuda.foreign_array`.
        """
        self._driver.activate()
        return fetch_array(self._driver, array, "image")

    def engine_times_ms(self, images: np.ndarray, text: np.ndarray, *, calls: int) -> list[float]:
        """Milliseconds of the engine alone, by CUDA events, on inputs that are on the GPU already."""
        driver = self._driver
        with self._engine_for(images, text).lane() as lane:
            for _ in range(3):  # settled, captured, replayed
                lane.enqueue({"image": images, "text": text})
            start, end = driver.create_event(), driver.create_event()
            times = []
            for _ in range(calls):
                driver.record(start, lane.stream)
                lane.launch_again()
                driver.record(end, lane.stream)
                driver.synchronize(lane.stream)
                times.append(driver.elapsed_ms(start, end))
            driver.destroy_event(start)
            driver.destroy_event(end)
        return times

    def engine_in_use(self, classes: int) -> StoredEngine:
        """The engine that a vocabulary of that size begins to look at: its sidecar says what it is made of."""
        return self._stored(self._role(classes))[0]

    def close(self) -> None:
        """Gives all device memory back; the backend cannot be used any more."""
        for engine in self._open.values():
            engine.close()
        self._open.clear()

    def _encoder(self) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
        """The text encoder: tokens to embeddings, and how many prompts it takes at a time."""
        try:
            engine = self._engine("text", {"tokens": (1, self.manifest.text.context_length)})
        except EngineError as error:
            raise EngineError(
                f"{error}; or use a vocabulary file of pcaseg vocab, which needs no text encoder"
            ) from error

        def encode(tokens: np.ndarray) -> np.ndarray:
            with engine.lane() as lane:
                found = lane.run({"tokens": tokens.astype(engine.dtypes["tokens"])})
            return found["text"].astype(np.float32)

        return encode, max(profile.shapes["tokens"][2][0] for profile in engine.profiles)

    def _run(self, outputs: tuple[str, ...], images: np.ndarray, text: np.ndarray) -> dict[str, np.ndarray]:
        self._bundle.check_outputs(outputs)
        with self._engine_for(images, text).lane() as lane:
            return lane.run({"image": images, "text": text})

    def _engine_for(self, images: Array, text: Array) -> Engine:
        return self._engine(self._role(text.shape[0]), {"image": tuple(images.shape), "text": tuple(text.shape)})

    def _engine(self, role: GraphRole, shapes: dict[str, Shape]) -> Engine:
        """The first engine with a profile that covers the shapes."""
        with self._lock:
            return self._covering(role, shapes)

    def _covering(self, role: GraphRole, shapes: dict[str, Shape]) -> Engine:
        stored = self._stored(role)
        for candidate in stored:
            if any(profile.covers(shapes) for profile in candidate.sidecar.key.profiles):
                return self._opened(candidate)
        profiles = "; ".join(p.describe() for engine in stored for p in engine.sidecar.key.profiles)
        asked = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
        command = build_command(self._bundle, role, runtime=self.machine.runtime)
        raise EngineError(
            f"{self._bundle.path}: no profile of its engines covers {asked} (there are {profiles}); build one that "
            f"does: {command}, or give fewer images or classes at a time"
        )

    def _stored(self, role: GraphRole) -> list[StoredEngine]:
        if role not in self._found:
            self._found[role] = find_engines(self._bundle, self.machine, role, precision=self._precision)
        return self._found[role]

    def _opened(self, stored: StoredEngine) -> Engine:
        source = str(stored.plan)
        if source not in self._open:
            self._driver.activate()
            key = stored.sidecar.key
            raw = deserialize(self._trt, stored.read(), self.log, source=source, host_code=key.version_compatible)
            if key.weight_stripped:
                if self._refit is None:
                    raise EngineError(
                        f"{source}: was built with --strip-weights; open it with refit, or build it anew without"
                    )
                self._refit(raw, key, self._bundle, self.log)
            self._open[source] = Engine(
                raw,
                key.profiles,
                driver=self._driver,
                log=self.log,
                source=source,
                contexts=self._contexts,
                kernels=open_kernels(self._trt, raw, stored.plan.with_suffix(KERNELS_SUFFIX)),
            )
        return self._open[source]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return open_tokenizer(self._bundle)

    def _role(self, classes: int) -> GraphRole:
        return "large" if classes > most_kept(self.manifest.shortlist) else "main"
