"""Builds a bundle's engines, once for each machine: the engine cache around the builder."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pcaseg.configs import check_choice
from pcaseg.errors import EngineError, MissingDependencyError, OutputError
from pcaseg.export.tensorrt.builder import BuildOptions, build_plan
from pcaseg.export.tensorrt.checks import check_fp8, check_plugins, chosen_precision, read_calibration
from pcaseg.export.tensorrt.graphs import graph_of
from pcaseg.export.tensorrt.inspection import (
    check_precision,
    layer_shares,
    layer_times,
    layer_types,
    reported_types,
)
from pcaseg.export.tensorrt.profiles import ProfileSet, roles, shape_profiles
from pcaseg.export.tensorrt.rtx import OWN_CHOICE, check_offered, with_targets
from pcaseg.export.tensorrt.timings import check_timing_cache, timings_of
from pcaseg.files import atomic_path, cache_folder, sha256_of
from pcaseg.paths import exists
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.cuda import Driver, Gpu, open_driver
from pcaseg.runtime.engines import (
    TITLES,
    EngineKey,
    EnginePrecision,
    EngineRuntime,
    EngineSidecar,
    GraphRole,
    LayerShare,
    Machine,
    Plugins,
    StoredEngine,
    differences,
    engine_folder,
    engine_folders,
    engines_of,
    read_engine,
    source_file,
    takes_plugins,
)
from pcaseg.runtime.tensorrt_api import capture_log, deserialize, import_tensorrt
from pcaseg.runtime.tensorrt_engine import Engine
from pcaseg.versions import installed_versions

if TYPE_CHECKING:
    from pcaseg.export.tensorrt.quantize import Calibration

BUILDER = 2
"""Version of what stands in this folder: raised where other engines come out of the same bundle."""

DEFAULTS = BuildOptions()


@dataclass(frozen=True)
class Built:
    """An engine, and whether it was there already."""

    engine: StoredEngine
    built: bool


def build_engines(
    bundle: Bundle | str | os.PathLike[str],
    *,
    runtime: EngineRuntime = "tensorrt",
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
        runtime: library that they are for; `rtx` builds without a GPU too, and then they are not yet opened on one.
        precision: None for the bundle's own; any other must be written in its graph, but int8 and fp8, which `quantize`
            writes.
        profile: which graphs and shapes.
        options: how they are built.
        device: `cuda` or `cuda:N`; None for the first, and for `rtx` none where there is none.
        build: False to be refused, with the field that differs, instead of building.
        timing_cache: file of what tactics took; None for one in the user's cache folder. `rtx` times none.
        plugins: `inside` builds from the bundle's graph with plugin nodes, whose kernels are compiled for this GPU and
            become part of the engine; `library` takes them from `plugin_library`; for graphs of `takes_plugins`.
        plugin_library: the C++ plugins.
        calibration: folder of images, for int8 and fp8.
        progress: whether to show it on standard error.
        driver: of the GPU; None for the real one.

    Returns:
        The engines, one for each graph.

    Raises:
        MissingDependencyError: the library or cuda-python is not installed.
        EngineError: no GPU (but of `rtx`), a failed build, a precision that was not met, or `build=False` and something
            is missing.
        BundleError: the bundle is damaged.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    wanted = chosen_precision(bundle, precision)
    check_choice(runtime, EngineRuntime, what="runtime")
    if runtime == "rtx":
        check_offered(options, plugins, timing_cache)
    images = read_calibration(bundle, wanted, calibration, plugins, options)
    check_plugins(bundle, plugins, plugin_library)
    bundle.verify()
    trt = import_tensorrt(runtime)
    if runtime == "rtx" or options.compute_capabilities:
        options = with_targets(trt, options, wanted)
    driver = driver or _driver(runtime, device)
    known, machine = None, Machine(trt.__version__, None, None, runtime=runtime)
    if runtime == "tensorrt":
        assert driver is not None  # TensorRT alone was refused without one
        if wanted == "fp8":
            check_fp8(trt, driver.gpu, options)
        if plugins != "none":
            known = _plugins(trt, bundle, driver, plugin_library)
        library = known.removeprefix("library-") if known and plugins == "library" else None
        machine = _at_hand(machine, driver.gpu, library)
        name = f"{machine.tensorrt}-{machine.compute_capability}.timing"
        timing_cache = timing_cache or cache_folder() / "tensorrt" / name
    if build and timing_cache is not None:
        check_timing_cache(timing_cache)
    found = []
    for role in roles(profile):
        kernels = known if takes_plugins(role, bundle.manifest) else None
        key = _key(bundle, role, wanted, profile, options, machine, kernels, images)
        job = _Job(trt, bundle, key, options, driver, timing_cache, images)
        found.append(job.find_or_build(machine, build=build, progress=progress))
    return found


def _driver(runtime: EngineRuntime, device: str | None) -> Driver | None:
    """The GPU's; TensorRT-RTX builds without one, unless one is named."""
    try:
        return open_driver(device)
    except (EngineError, MissingDependencyError):
        if runtime == "tensorrt" or device is not None:
            raise
        return None


def _at_hand(machine: Machine, gpu: Gpu, library: str | None = None) -> Machine:
    """The machine as its GPU makes it."""
    return replace(machine, gpu=gpu.name, compute_capability=gpu.compute_capability, library=library)


def _plugins(trt: Any, bundle: Bundle, driver: Driver, library: Path | None) -> str:
    from pcaseg.export.plugins.prepare import prepare_plugins  # these alone need PyTorch and Triton

    return prepare_plugins(trt, bundle, driver.gpu, library)


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
    capability, hardware = machine.compute_capability, options.hardware
    if capability is None:
        listed = options.compute_capabilities
        capability = ",".join(listed) or OWN_CHOICE
        hardware = "same-compute-capability" if listed else "ampere-and-newer"
    return EngineKey(
        runtime=machine.runtime,
        graph=role,
        onnx_sha256=bundle.manifest.files[source].sha256,
        builder=BUILDER,
        precision="fp32" if role == "text" else precision,
        profiles=shape_profiles(bundle.manifest, role, profile),
        tensorrt=machine.tensorrt,
        compute_capability=capability,
        gpu=machine.gpu,
        hardware=hardware,
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
    driver: Driver | None
    timing_cache: Path | None
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
        others = [engine.sidecar.key for engine in engines_of(self.bundle, self.key.runtime, self.key.graph)]
        if not others:
            return f"has no {TITLES[self.key.runtime]} engine of its {self.key.graph} graph"
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
            *(("compute_capability",) if machine.compute_capability is None else ()),
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
            with timings_of(self.timing_cache) as cache:
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
        opened_on = self._opens_on()
        shares = self._report(log, str(path)) if opened_on is None else self._prove(plan, log, str(path))
        check_precision(shares, self.key.precision, source=str(path))
        with atomic_path(path) as temporary:
            temporary.write_bytes(plan)
            digest = sha256_of(temporary)
        sidecar = EngineSidecar(
            key=self.key,
            sha256=digest,
            nbytes=len(plan),
            layers=shares,
            opened_on=opened_on,
            build_seconds=seconds,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            versions=installed_versions(("pcaseg", "onnx", "numpy"))
            | {TITLES[self.key.runtime].lower(): self.key.tensorrt},
        )
        with atomic_path(path.with_suffix(".json")) as temporary:
            temporary.write_text(sidecar.to_json(), encoding="utf-8")
        return StoredEngine(path, sidecar)

    def _opens_on(self) -> str | None:
        """The GPU at hand, if the engine is to run on it."""
        if self.driver is None:
            return None
        machine = Machine(self.key.tensorrt, None, None, runtime=self.key.runtime)
        if self.key.runtime == "rtx" and differences(self.key, self.bundle, _at_hand(machine, self.driver.gpu)):
            return None
        return self.driver.gpu.name

    def _report(self, log: Any, source: str) -> dict[str, LayerShare]:
        """Layers by type, as the builder lists them: a plan is opened by a driver alone."""
        return layer_shares(reported_types(log.report, source=source), None)

    def _prove(self, plan: bytes, log: Any, source: str) -> dict[str, LayerShare]:
        """Layers and time by type of the finished engine, opened on the GPU."""
        raw = deserialize(self.trt, plan, log, source=source, host_code=self.key.version_compatible)
        types = layer_types(raw, self.trt)
        times = None
        if self.driver is not None and not self.key.weight_stripped:  # without weights there is nothing to run
            engine = Engine(raw, self.key.profiles, driver=self.driver, log=log, source=source, contexts=1)
            try:
                usual = {name: shapes[1] for name, shapes in self.key.profiles[0].shapes.items()}
                times = layer_times(engine, usual, self.trt)
            finally:
                engine.close()
        return layer_shares(types, times)
