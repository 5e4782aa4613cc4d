"""TensorRT engines of a bundle on disk: what each was built for, whether it fits this machine, and its bytes.

An engine is a file `NAME.plan` with `NAME.json` beside it, the sidecar. `NAME` ends in a hash of the engine's key, so
two engines that differ in anything that matters never share a file. They lie in the bundle's folder `engines/`, or, for
a zipped or read-only bundle, in the user's cache folder. No TensorRT here: whether an engine fits is known before it is
deserialised.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from pcaseg.configs import Precision, most_kept
from pcaseg.errors import EngineError
from pcaseg.files import cache_folder, found_cache
from pcaseg.paths import entries, exists, is_folder
from pcaseg.runtime.bundle import PLUGIN_SEGMENTER_NAME, SEGMENTER_NAME, TEXT_ENCODER_NAME, Bundle
from pcaseg.runtime.manifest import Manifest
from pcaseg.typed_json import load_typed

SCHEMA_VERSION = 2

ENGINES_NAME = "engines"
"""The folder within a bundle."""

EngineRuntime = Literal["tensorrt", "rtx"]
"""Library that builds and runs an engine: TensorRT, or its sibling for RTX cards, which needs no GPU to build."""

TITLES: dict[EngineRuntime, str] = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
"""Their names; in small letters those of the backend and of the pip extra, and with _ for - that of the module."""

GraphRole = Literal["main", "large", "text"]
"""The segmenter for up to 256 classes; the one for more, which keeps the best 256; the text encoder."""

EnginePrecision = Literal["fp32", "fp16", "int8", "fp8"]
"""Precisions as TensorRT names them."""

EIGHT_BITS: tuple[EnginePrecision, ...] = ("int8", "fp8")
"""Those that no bundle holds: graphs are quantised to them when an engine is built."""

FP8_COMPUTE_CAPABILITY = (8, 9)
"""Ada and newer (TensorRT's documentation of quantised types)."""

GRAPH_PRECISION: dict[Precision, EnginePrecision] = {"float32": "fp32", "float16": "fp16"}
"""Names of a bundle's precisions here."""

Hardware = Literal["this-gpu", "same-compute-capability", "ampere-and-newer"]
"""Choice of GPUs that an engine runs on."""

Plugins = Literal["none", "inside", "library"]
"""Source of the project's kernels in an engine: it has none, they are inside, or a C++ library brings them."""

Shape = tuple[int, ...]

_BUILD_ANEW = "build it anew with pcaseg build"
_DELETE = "delete it, and run pcaseg build again"


@dataclass(frozen=True)
class ShapeProfile:
    """One optimisation profile: the range of shapes of each input, and the shape that tactics are timed at.

    Attributes:
        name: such as `default`.
        shapes: of each input its smallest, usual and largest shape.
    """

    name: str
    shapes: dict[str, tuple[Shape, Shape, Shape]]

    def covers(self, shapes: Mapping[str, Shape]) -> bool:
        """True where inputs of these shapes may run under this profile."""
        return all(
            len(low) == len(shapes[name]) and all(a <= b <= c for a, b, c in zip(low, shapes[name], high, strict=True))
            for name, (low, _, high) in self.shapes.items()
        )

    def largest(self) -> int:
        """Numbers in its largest inputs: of two profiles that cover a shape, the smaller is tuned nearer to it."""
        return sum(math.prod(high) for _, _, high in self.shapes.values())

    def describe(self) -> str:
        """Text for messages: `edge (image 1x3x384x384 to 5x3x384x384, text 1x512 to 64x512)`."""
        ranges = (f"{name} {_shown(low)} to {_shown(high)}" for name, (low, _, high) in self.shapes.items())
        return f"{self.name} ({', '.join(ranges)})"


@dataclass(frozen=True)
class EngineKey:
    """Everything that decides what an engine is. Two engines with the same key are interchangeable.

    Attributes:
        runtime: library that it is for.
        graph: which of the bundle's graphs.
        onnx_sha256: of the bundle's `.onnx` file that it was derived from.
        builder: version of the derivation and of the builder's settings (`pcaseg.export.tensorrt`).
        precision: of weights and tensors.
        profiles: in the engine's order.
        tensorrt: version of that library, such as `10.13.3.9`.
        compute_capability: of the GPU that it was built on, such as `9.0`; of TensorRT-RTX those it was built for, such
            as `8.9,12.0`, or `8.0+`, which is what that library chooses.
        gpu: name of the GPU that it was built on; None of TensorRT-RTX, which builds for GPUs that are not there.
        hardware: what other GPUs it runs on; of TensorRT-RTX those of the same compute capabilities, or Ampere's and
            newer.
        version_compatible: whether newer TensorRT versions run it.
        weight_stripped: whether it lacks its weights, which are then taken from the bundle when it is opened.
        optimization_level: 0 to 5, or None where TensorRT has no such setting.
        plugins: `inside-` or `library-` and a SHA-256: of the kernels that the plan holds, or of the library that it
            needs; None without plugins.
        calibration: SHA-256 of the images that int8 or fp8 was calibrated with; None for other precisions.
    """

    runtime: EngineRuntime
    graph: GraphRole
    onnx_sha256: str
    builder: int
    precision: EnginePrecision
    profiles: tuple[ShapeProfile, ...]
    tensorrt: str
    compute_capability: str
    gpu: str | None
    hardware: Hardware
    version_compatible: bool
    weight_stripped: bool
    optimization_level: int | None
    plugins: str | None
    calibration: str | None

    @property
    def digest(self) -> str:
        """SHA-256 over all fields."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def stem(self) -> str:
        """Name of its files, without the ending."""
        return f"{self.graph}-{self.precision}-{self.digest[:16]}"


@dataclass(frozen=True)
class LayerShare:
    """Share of an engine that computes in one type: layers, and milliseconds where it was profiled."""

    layers: int
    time_ms: float | None


@final
@dataclass(frozen=True)
class EngineSidecar:
    """Sidecar of a plan.

    Attributes:
        key: what it was built for.
        sha256: of the plan.
        nbytes: its size.
        layers: by type, of the layers that compute.
        opened_on: GPU on which it was opened and its layers inspected; None where it was not yet opened on a GPU, and
            the builder's own report names the layers.
        build_seconds: it took.
        created: time, ISO 8601.
        versions: of packages.
    """

    key: EngineKey
    sha256: str
    nbytes: int
    layers: dict[str, LayerShare]
    opened_on: str | None
    build_seconds: float
    created: str
    versions: dict[str, str]
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> EngineSidecar:
        """Reads what `to_json` wrote.

        Raises:
            EngineError: it is no such text; the message begins with `source`.
        """
        return load_typed(cls, text, source, version=SCHEMA_VERSION, error=EngineError, mend=_DELETE)


@dataclass(frozen=True)
class Machine:
    """Requirements of an engine: TensorRT's version, GPU's name, compute capability, the plugin library's hash.

    GPU and compute capability are None where engines are built for GPUs that are not there.
    """

    tensorrt: str
    gpu: str | None
    compute_capability: str | None
    library: str | None = None
    runtime: EngineRuntime = "tensorrt"


@dataclass(frozen=True)
class StoredEngine:
    """An engine on disk."""

    plan: Path
    sidecar: EngineSidecar

    def read(self) -> bytes:
        """The plan, once its hash is checked: TensorRT never sees a truncated or foreign file.

        Raises:
            EngineError: it cannot be read, or is not what the sidecar vouches for.
        """
        try:
            data = self.plan.read_bytes()
        except OSError as error:
            raise EngineError(f"{self.plan}: cannot be read ({error.strerror}); {_BUILD_ANEW}") from error
        if len(data) != self.sidecar.nbytes or hashlib.sha256(data).hexdigest() != self.sidecar.sha256:
            raise EngineError(f"{self.plan}: differs from what was built (truncated or altered); {_BUILD_ANEW}")
        return data


def engine_folder(bundle: Bundle) -> Path:
    """Returns the folder for a bundle's engines: in the bundle if that is a writable folder, else in the cache."""
    inside = bundle.path / ENGINES_NAME
    if is_folder(bundle.path) and os.access(inside if exists(inside) else bundle.path, os.W_OK):
        return inside
    return cache_folder() / ENGINES_NAME / bundle.sha256[:16]


def engine_folders(bundle: Bundle) -> list[Path]:
    """Folders in which engines of a bundle may lie: in itself, if it is a folder, and in the user's cache folder."""
    inside = [bundle.path / ENGINES_NAME] if is_folder(bundle.path) else []
    cache = found_cache()
    return [*inside, cache / ENGINES_NAME / bundle.sha256[:16]] if cache else inside


def stored_engines(bundle: Bundle) -> list[StoredEngine]:
    """All engines of a bundle, by name; sidecars are read, plans are not.

    Raises:
        EngineError: a sidecar is malformed, or a folder cannot be listed.
    """
    return [
        read_engine(path) for folder in engine_folders(bundle) for path in entries(folder, "*.json", error=EngineError)
    ]


def read_engine(path: Path) -> StoredEngine:
    """The engine whose sidecar is at `path`; its plan is not read.

    Raises:
        EngineError: the sidecar is malformed.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: cannot be read ({error.strerror}); {_DELETE}") from error
    return StoredEngine(path.with_suffix(".plan"), EngineSidecar.from_json(text, str(path)))


def differences(key: EngineKey, bundle: Bundle, machine: Machine) -> list[str]:
    """Reasons why an engine does not fit: a phrase for each field that differs; empty if it fits."""
    found = []
    source = source_file(key.graph, key.plugins)
    entry = bundle.manifest.files.get(source)
    if entry is None or key.onnx_sha256 != entry.sha256:
        found.append(f"it was built from another {source}")
    if key.tensorrt != machine.tensorrt and not (key.version_compatible and _not_older(machine.tensorrt, key.tensorrt)):
        title = TITLES[key.runtime]
        found.append(f"it was built with {title} {key.tensorrt} and this is {machine.tensorrt}")
    if (key.plugins or "").startswith("library-") and key.plugins != f"library-{machine.library}":
        found.append("it needs the plugin library that it was built with")
    if machine.compute_capability is None:
        return found
    if key.hardware == "ampere-and-newer":
        if _numbers(machine.compute_capability) < (8, 0):
            found.append(f"it needs compute capability 8.0 and this GPU has {machine.compute_capability}")
        return found
    if machine.compute_capability not in key.compute_capability.split(","):
        found.append(f"it was built for compute capability {key.compute_capability}, not {machine.compute_capability}")
    elif key.hardware == "this-gpu" and key.gpu != machine.gpu:
        found.append(f"it was built on {key.gpu} and this is {machine.gpu}")
    return found


def find_engines(
    bundle: Bundle, machine: Machine, role: GraphRole, *, precision: EnginePrecision | None = None
) -> list[StoredEngine]:
    """A bundle's engines for one graph that run on this machine, those that cover less first, then the newest.

    Args:
        bundle: whose engines.
        machine: see there.
        role: which graph.
        precision: of the segmenter; None for the bundle's own, so that eight bits run only where they are asked for.

    Raises:
        EngineError: there is none; the message names what differs.
    """
    candidates = engines_of(bundle, machine.runtime, role)
    wanted = "fp32" if role == "text" else precision or GRAPH_PRECISION[bundle.manifest.precision]
    reasons = {engine.plan: differences(engine.sidecar.key, bundle, machine) for engine in candidates}
    for engine in candidates:
        if engine.sidecar.key.precision != wanted:
            reasons[engine.plan].append(f"it computes in {engine.sidecar.key.precision}, not {wanted}")
    fitting = [engine for engine in candidates if not reasons[engine.plan]]
    if fitting:
        newest = sorted(fitting, key=lambda engine: engine.sidecar.created, reverse=True)
        return sorted(newest, key=lambda engine: max(p.largest() for p in engine.sidecar.key.profiles))
    quantised = f" --precision {wanted} --calibration FOLDER" if wanted in EIGHT_BITS else ""
    build = f"run: {build_command(bundle, role, runtime=machine.runtime)}{quantised}"
    if not candidates:
        raise EngineError(f"{bundle.path}: has no {TITLES[machine.runtime]} engine of its {role} graph; {build}")
    nearest = min(candidates, key=lambda engine: len(reasons[engine.plan]))
    raise EngineError(f"{nearest.plan}: does not fit: {', '.join(reasons[nearest.plan])}; {build}")


def engines_of(bundle: Bundle, runtime: EngineRuntime, role: GraphRole) -> list[StoredEngine]:
    """All engines of one graph for that library.

    Raises:
        EngineError: as `stored_engines`.
    """
    keys = ((engine, engine.sidecar.key) for engine in stored_engines(bundle))
    return [engine for engine, key in keys if (key.runtime, key.graph) == (runtime, role)]


def build_command(bundle: Bundle, role: GraphRole, *, classes: int = 1, runtime: EngineRuntime = "tensorrt") -> str:
    """Command that builds an engine of that graph."""
    large = role == "large" or classes > most_kept(bundle.manifest.shortlist)
    chosen = "" if runtime == "tensorrt" else f" --runtime {runtime}"
    return f"pcaseg build {bundle.path}{chosen}" + (" --profile large" if large else "")


def takes_plugins(role: GraphRole, manifest: Manifest) -> bool:
    """True where a bundle's graph with plugin nodes serves this one: `main`, and with a shortlist `large` too."""
    return role == "main" or (role == "large" and manifest.shortlist is not None)


def source_file(role: GraphRole, plugins: str | None) -> str:
    """The bundle's file that such an engine is derived from."""
    if role == "text":
        return TEXT_ENCODER_NAME
    return SEGMENTER_NAME if plugins is None else PLUGIN_SEGMENTER_NAME


def _not_older(version: str, than: str) -> bool:
    """Version-compatible plans run on the same major version, and there not on an older minor one."""
    ours, theirs = _numbers(version), _numbers(than)
    return ours[:1] == theirs[:1] and ours[:2] >= theirs[:2]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape))
