"""Builds a bundle's engines, once for each machine: the engine cache around the builder."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pcaseg.errors import EngineError, OutputError, PcasegError
from pcaseg.export.tensorrt.builder import BuildOptions, build_plan
from pcaseg.export.tensorrt.graphs import graph_of
from pcaseg.export.tensorrt.inspection import check_precision, layer_shares, layer_times, layer_types
from pcaseg.export.tensorrt.profiles import ProfileSet, roles, shape_profiles
from pcaseg.export.tensorrt.timings import check_timing_cache, timing_cache
from pcaseg.files import atomic_path, cache_folder, sha256_of
from pcaseg.paths import exists, is_file
from pcaseg.runtime.bundle import PLUGIN_SEGMENTER_NAME, Bundle
from pcaseg.runtime.cuda import Driver, open_driver
from pcaseg.runtime.engines import (
    EIGHT_BITS,
    GRAPH_PRECISION,
    EngineKey,
    EnginePrecision,
    EngineSidecar,
    GraphRole,
    Machine,
    Plugins,
    StoredEngine,
    differences,
    engine_folder,
    engine_folders,
    read_engine,
    source_file,
    stored_engines,
)
from pcaseg.runtime.tensorrt_api import capture_log, deserialize, import_tensorrt
from pcaseg.runtime.tensorrt_engine import Engine
from pcaseg.versions import installed_versions

if TYPE_CHECKING:
    from pcaseg.export.tensorrt.quantize import Calibration

BUILDER = 1
"""Version of what stands in this folder: raised where other engines come out of the same bundle."""

FP8_COMPUTE_CAPABILITY = (8, 9)
"""Ada and newer (TensorRT's documentation of quantised types)."""

DEFAULTS = BuildOptions()


@dataclass(frozen=True)
class Built:
    """An engine, and whether it was there already."""

    engine: StoredEngine
    built: bool


def build_engines(
    bundle: Bundle | str | os.PathLike[str],
    *,
    precision: EnginePrecision | None = None,
    profile: ProfileSet = "default",
    options: BuildOptions = DEFAULTS,
    device: str | None = None,
    build: bool = True,
    timing_cache: Path | None = None,
    plugins: Plugins = "none",
    plugin_library: Path | None = None,
    calibration: Path | None = None,
    progress: bool = False,
    driver: Driver | None = None,
) -> list[Built]:
    """Makes sure that a bundle has the engines of a profile for this machine.

    Args:
        bundle: of `pcaseg export`, or its path.
        precision: None for the bundle's own; any other must be written in its graph, but int8 and fp8, which `quantize`
            writes.
        profile: which graphs and shapes.
        options: how they are built.
        device: `cuda` or `cuda:N`.
        build: False to be refused, with the field that differs, instead of building.
        timing_cache: file of what tactics took; None for one in the user's cache folder.
        plugins: `inside` builds the main engine from the bundle's graph with plugin nodes, whose kernels are compiled
            for this GPU and become part of the engine; `library` takes them from `plugin_library`.
        plugin_library: the C++ plugins.
        calibration: folder of images, for int8 and fp8.
        progress: whether to show it on standard error.
        driver: of the GPU; None for the real one.

    Returns:
        The engines, one for each graph.

    Raises:
        MissingDependencyError: TensorRT or cuda-python is not installed.
        EngineError: no GPU, a failed build, a precision that was not met, or `build=False` and something is missing.
        BundleError: the bundle is damaged.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    wanted = _precision(bundle, precision)
    images = _calibration(bundle, wanted, calibration, plugins, options)
    _check_plugins(bundle, plugins, plugin_library)
    bundle.verify()
    trt = import_tensorrt()
    driver = driver or open_driver(device)
    if wanted == "fp8":
        _check_fp8(trt, driver, options)
    known = None if plugins == "none" else _plugins(trt, bundle, driver, plugin_library)
    library = known.removeprefix("library-") if known and plugins == "library" else None
    machine = Machine(trt.__version__, driver.gpu.name, driver.gpu.compute_capability, library)
    cache = timing_cache or cache_folder() / "tensorrt" / f"{machine.tensorrt}-{machine.compute_capability}.timing"
    if build:
        check_timing_cache(cache)
    found = []
    for role in roles(profile):
        key = _key(bundle, role, wanted, profile, options, machine, known if role == "main" else None, images)
        job = _Job(trt, bundle, key, options, driver, cache, images)
        found.append(job.find_or_build(machine, build=build, progress=progress))
    return found


def _precision(bundle: Bundle, asked: EnginePrecision | None) -> EnginePrecision:
    own = GRAPH_PRECISION[bundle.manifest.precision]
    if asked is not None and asked != own and asked not in EIGHT_BITS:
        name = next(key for key, value in GRAPH_PRECISION.items() if value == asked)
        raise PcasegError(
            f"{bundle.path}: its graph is {own}, and precision is written in the graph; for {asked} export the bundle "
            f"with --precision {name}"
        )
    return asked or own


def _check_plugins(bundle: Bundle, plugins: Plugins, library: Path | None) -> None:
    """Refuses what does not go together, before TensorRT is needed."""
    if (plugins == "library") != (library is not None):
        raise PcasegError(f"plugins={plugins!r}: library, and nothing else, takes a file (--plugin-library)")
    if library is not None and not is_file(library):
        raise PcasegError(f"{library}: no such file; make it with python -m pcaseg.export.plugins.library")
    if plugins != "none" and PLUGIN_SEGMENTER_NAME not in bundle.manifest.files:
        raise PcasegError(f"{bundle.path}: has no {PLUGIN_SEGMENTER_NAME}; export it with --plugins")


def _check_fp8(trt: Any, driver: Driver, options: BuildOptions) -> None:
    gpu = driver.gpu
    if not hasattr(trt.DataType, "FP8"):
        raise EngineError(f"TensorRT {trt.__version__} has no fp8; take int8 or install a newer one")
    if tuple(map(int, gpu.compute_capability.split("."))) < FP8_COMPUTE_CAPABILITY:
        raise EngineError(f"{gpu.name}: has no fp8 (compute capability {gpu.compute_capability}, not 8.9); take int8")
    if options.hardware == "ampere-and-newer":
        raise EngineError("hardware='ampere-and-newer': Ampere GPUs have no fp8; take int8 or another --hardware")


def _plugins(trt: Any, bundle: Bundle, driver: Driver, library: Path | None) -> str:
    from pcaseg.export.plugins.prepare import prepare_plugins  # these alone need PyTorch and Triton

    return prepare_plugins(trt, bundle, driver.gpu, library)


def _calibration(
    bundle: Bundle, precision: EnginePrecision, folder: Path | None, plugins: Plugins, options: BuildOptions
) -> Calibration | None:
    if (precision in EIGHT_BITS) != (folder is not None):
        raise PcasegError(
            f"precision={precision!r}: int8 and fp8, and nothing else, take a folder of images (--calibration)"
        )
    if folder is None:
        return None
    if plugins != "none":
        raise PcasegError(f"precision={precision!r}: the plugins take wider numbers; build without --plugins")
    if options.weight_stripped:
        raise PcasegError(
            f"precision={precision!r}: a bundle holds no quantised weights to refit; build without --strip-weights"
        )
    from pcaseg.export.tensorrt.quantize import Calibration, check_quantisable  # these alone need ONNX Runtime

    check_quantisable(bundle, precision)
    return Calibration.read(folder)


def _key(
    bundle: Bundle,
    role: GraphRole,
    precision: EnginePrecision,
    profile: ProfileSet,
    options: BuildOptions,
    machine: Machine,
    plugins: str | None,
    calibration: Calibration | None,
) -> EngineKey:
    source = source_file(role, plugins)
    return EngineKey(
        graph=role,
        onnx_sha256=bundle.manifest.files[source].sha256,
        builder=BUILDER,
        precision="fp32" if role == "text" else precision,
        profiles=shape_profiles(bundle.manifest, role, profile),
        tensorrt=machine.tensorrt,
        compute_capability=machine.compute_capability,
        gpu=machine.gpu,
        hardware=options.hardware,
        version_compatible=options.version_compatible,
        weight_stripped=options.weight_stripped,
        optimization_level=options.optimization_level,
        plugins=plugins,
        calibration=None if role == "text" or calibration is None else calibration.sha256,
    )


@dataclass(frozen=True)
class _Job:
    """One engine to be found or built."""

    trt: Any
    bundle: Bundle
    key: EngineKey
    options: BuildOptions
    driver: Driver
    timing_cache: Path
    calibration: Calibration | None

    def find_or_build(self, machine: Machine, *, build: bool, progress: bool) -> Built:
        """The engine with this very key; another process that builds it at the moment is waited for."""
        found = self._stored()
        if found is not None:
            return Built(found, built=False)
        if not build:
            raise EngineError(f"{self.bundle.path}: {self._missing(machine)}; to build it leave out --no-build")
        folder = engine_folder(self.bundle)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: no folder can be made there ({error.strerror}); make room for it") from error
        with FileLock(folder / f".{self.key.stem}.lock"):
            found = self._stored()
            return Built(found, built=False) if found is not None else Built(self._build(folder, progress), built=True)

    def _stored(self) -> StoredEngine | None:
        """The engine with this very key, if it is whole; a damaged one is built over."""
        for folder in engine_folders(self.bundle):
            path = folder / f"{self.key.stem}.json"
            if exists(path, error=EngineError):
                try:
                    engine = read_engine(path)
                    engine.read()
                except EngineError:
                    continue
                if engine.sidecar.key == self.key:
                    return engine
        return None

    def _missing(self, machine: Machine) -> str:
        """Field that keeps the nearest engine of this graph from being the one asked for."""
        others = [
            engine.sidecar.key for engine in stored_engines(self.bundle) if engine.sidecar.key.graph == self.key.graph
        ]
        if not others:
            return f"has no TensorRT engine of its {self.key.graph} graph"
        if self.key in others:  # and yet not found
            return f"the plan of its {self.key.graph} engine is missing or damaged"
        unlike = [self._unlike(key, machine) for key in others]
        return f"its {self.key.graph} engine does not fit: {', '.join(sorted(unlike, key=len)[0])}"

    def _unlike(self, key: EngineKey, machine: Machine) -> list[str]:
        names = (
            "builder",
            "precision",
            "hardware",
            "version_compatible",
            "weight_stripped",
            "optimization_level",
            "plugins",
            "calibration",
        )
        found = [
            f"{name} is {getattr(key, name)}, not {getattr(self.key, name)}"
            for name in names
            if getattr(key, name) != getattr(self.key, name)
        ]
        if key.profiles != self.key.profiles:
            found.append(f"profiles are {', '.join(p.name for p in key.profiles)}, not those asked for")
        return found + differences(key, self.bundle, machine)

    def _build(self, folder: Path, progress: bool) -> StoredEngine:
        """Builds, proves the precision, and writes the plan and, last, the sidecar, which makes the engine exist."""
        shown = f"{self.bundle.path / source_file(self.key.graph, self.key.plugins)} ({self.key.graph})"
        graph = graph_of(self.trt, self.bundle, self.key)
        if self.key.calibration is not None:
            from pcaseg.export.tensorrt.quantize import quantize

            assert self.calibration is not None  # its hash is in the key
            graph = quantize(
                graph,
                self.key.graph,
                self.bundle,
                self.calibration,
                precision=self.key.precision,
                progress=progress,
            )
        began = time.monotonic()
        log = capture_log(self.trt, folder / f"{self.key.stem}.log")
        try:
            with timing_cache(self.timing_cache) as cache:
                plan, cache.data = build_plan(
                    self.trt,
                    graph.SerializeToString(),
                    self.key.profiles,
                    precision=self.key.precision,
                    options=self.options,
                    timing_cache=cache.data,
                    log=log,
                    source=shown,
                    progress=progress,
                )
            seconds = time.monotonic() - began
            return self._write(folder, plan, log, seconds)
        finally:
            log.close()

    def _write(self, folder: Path, plan: bytes, log: Any, seconds: float) -> StoredEngine:
        path = folder / f"{self.key.stem}.plan"
        shares = self._prove(plan, log, str(path))
        with atomic_path(path) as temporary:
            temporary.write_bytes(plan)
            digest = sha256_of(temporary)
        sidecar = EngineSidecar(
            key=self.key,
            sha256=digest,
            nbytes=len(plan),
            layers=shares,
            build_seconds=seconds,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            versions=installed_versions(("pcaseg", "onnx", "numpy")) | {"tensorrt": self.key.tensorrt},
        )
        with atomic_path(path.with_suffix(".json")) as temporary:
            temporary.write_text(sidecar.to_json(), encoding="utf-8")
        return StoredEngine(path, sidecar)

    def _prove(self, plan: bytes, log: Any, source: str) -> Any:
        """Layers and time by type of the finished engine, held against the precision that was asked for."""
        raw = deserialize(self.trt, plan, log, source=source, host_code=self.key.version_compatible)
        types = layer_types(raw, self.trt)
        times = None
        if not self.key.weight_stripped:  # without weights there is nothing to run
            engine = Engine(raw, self.key.profiles, driver=self.driver, log=log, source=source, contexts=1)
            try:
                usual = {name: shapes[1] for name, shapes in self.key.profiles[0].shapes.items()}
                times = layer_times(engine, usual, self.trt)
            finally:
                engine.close()
        shares = layer_shares(types, times)
        check_precision(shares, self.key.precision, source=source)
        return shares
