"""Rows of `pcaseg bench`: JSON lines, one backend at one point each, complete in itself."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, final

from pcaseg.configs import Strategy, WeightsKind
from pcaseg.errors import OutputError, PcasegError
from pcaseg.evaluation.accuracy import Accuracy
from pcaseg.paths import size_of
from pcaseg.runtime.engines import EngineSidecar, LayerShare
from pcaseg.typed_json import ADDED_LATER, load_typed

SCHEMA_VERSION = 1

Computation = Literal["published", "folded"]
"""`published`: the class axis padded to 256 and the guidance repeated per class, as the published code computes; its
time is the published model's. `folded`: the same numbers without that work."""

BACKENDS = (
    "eager",
    "eager-autocast",
    "eager-compiled",
    "folded",
    "folded-triton",
    "onnxruntime-cpu",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "openvino-cpu",
    "tensorrt",
)
"""Names of all that can be measured, in the order of reports."""

Status = Literal["ok", "failed", "skipped"]
"""`failed`: it ran, but is not right by its gate; its speed counts for nothing."""


_MEND = "measure anew with pcaseg bench"


class RowsError(PcasegError):
    """A file of rows that is incomplete, altered or of another schema."""


@dataclass(frozen=True)
class Point:
    """Settings that all backends of a comparison share.

    Attributes:
        classes: T.
        strategy: `single` or `sliding`.
        images: of one call. With more than one only the engine runs, on network inputs.
        precision: asked for; a backend that always has its own says so in its row.
        threads: CPU threads per call.
        streams: calls at the same time.
        height, width: of each image in pixels.
        shortlist: classes of each window that are aggregated at most; None for 256.
    """

    classes: int
    strategy: Strategy
    images: int
    precision: str
    threads: int
    streams: int
    height: int
    width: int
    shortlist: int | None = field(default=None, metadata=ADDED_LATER)


@final
@dataclass(frozen=True)
class Latency:
    """Times of one call in milliseconds, and all of them.

    Attributes:
        per_s: images per second: of the median call, or with several streams of the whole time.
        samples_ms: in the order they were taken, `rounds` of equal length.
    """

    n: int
    rounds: int
    mean_ms: float
    min_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    per_s: float
    samples_ms: tuple[float, ...]


@final
@dataclass(frozen=True)
class Ratio:
    """One time over another, with a 95 % interval over the rounds; in rows eager float32's over the backend's own."""

    value: float
    low: float
    high: float


@final
@dataclass(frozen=True)
class Timing:
    """One scope of one backend: `ratio` is None where eager float32 was not measured."""

    latency: Latency
    ratio: Ratio | None


@final
@dataclass(frozen=True)
class Cold:
    """A start in a process of its own, seconds; peak memory of that process, weights and first frame included.

    Attributes:
        import_s: the interpreter's start and the packages.
        load_s: weights or graph; compilation where it happens then.
        vocabulary_s: embedding the names.
        first_frame_s: the first image; compilation, or reading a TensorRT engine, where it happens then.
    """

    import_s: float
    load_s: float
    vocabulary_s: float
    first_frame_s: float
    peak_host_mib: float
    peak_device_mib: float | None

    @property
    def total_s(self) -> float:
        """From starting the process to its first result."""
        return self.import_s + self.load_s + self.vocabulary_s + self.first_frame_s


@final
@dataclass(frozen=True)
class MachineRates:
    """Rates that the machine reached in this run: the roofline that calls are held against.

    Attributes:
        matmul_gflops: a float32 product of two square matrices, 10^9 operations per second.
        copy_gb_s: copying an array beyond the caches, 10^9 bytes read and written per second.
    """

    matmul_gflops: float
    copy_gb_s: float


@final
@dataclass(frozen=True)
class EngineFacts:
    """Facts of a TensorRT engine, by its sidecar.

    Attributes:
        tensorrt: version that built it.
        layers: by type (`fp16`, `fp32`, ...), of those that compute.
        build_seconds: it took.
    """

    tensorrt: str
    layers: dict[str, LayerShare]
    build_seconds: float

    @classmethod
    def of(cls, sidecar: EngineSidecar) -> EngineFacts:
        """Facts of a sidecar that rows keep."""
        return cls(sidecar.key.tensorrt, sidecar.layers, sidecar.build_seconds)


@final
@dataclass(frozen=True)
class BenchRow:
    """One backend at one point.

    Attributes:
        run: the same in all rows of a run.
        created: UTC, ISO 8601.
        backend: one of `BACKENDS`.
        runs: what really ran, such as `PyTorch on cpu, bfloat16`; empty if nothing did.
        reason: of a row that is skipped or failed; empty otherwise.
        noise: the reason why the ratio of this row should not be quoted; empty where it may be.
        engine: network inputs to logits, on memory where the network runs.
        end_to_end: image file to label map; None with several images per call.
        stages_ms: medians; `engine` stands for stages that a graph does not show.
        energy_j: of one call of the engine; None where nothing measures it.
        gmac: 10^9 multiply-adds of one call of the engine, by formula and counter.
        least_mb: 10^6 bytes that one call of the engine cannot avoid: weights once, inputs, outputs.
        engine_facts: of a TensorRT engine; None of anything else.
    """

    run: str
    created: str
    preset: str
    aggregation: str
    weights: WeightsKind
    bundle_sha256: str | None
    engine_sha256: str | None
    backend: str
    runs: str
    computation: Computation
    precision: str
    point: Point
    status: Status
    reason: str = ""
    noise: str = ""
    engine: Timing | None = None
    end_to_end: Timing | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    cold: Cold | None = None
    energy_j: float | None = None
    accuracy: Accuracy | None = None
    gate: dict[str, float] = field(default_factory=dict)
    gmac: float | None = None
    least_mb: float | None = None
    machine: MachineRates | None = None
    environment: dict[str, str] = field(default_factory=dict)
    engine_facts: EngineFacts | None = field(default=None, metadata=ADDED_LATER)
    schema_version: int = SCHEMA_VERSION


def rounded(value: float) -> float:
    """Six digits of a number: more would be noise in the file."""
    return float(f"{value:.6g}")


def check_destination(path: str | os.PathLike[str]) -> None:
    """Refuses a place where rows cannot be added, before they are measured; leaves nothing there.

    Raises:
        OutputError: it cannot be written, or holds something else than rows.
    """
    path = Path(path)
    try:
        held = size_of(path, error=OutputError)
        if held:
            read_rows([path])
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8"):
            pass
        if not held:
            path.unlink()
    except RowsError as error:
        raise OutputError(f"{error}; nothing was added to it, choose another file") from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def append_rows(path: str | os.PathLike[str], rows: Iterable[BenchRow]) -> None:
    """Adds rows at the end of a file that `check_destination` passed, or makes it.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(path)
    text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:  # one write: two runs may add to one file
            file.write(text.encode(errors="backslashreplace"))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def read_rows(paths: Sequence[str | os.PathLike[str]]) -> list[BenchRow]:
    """All rows of some files, in order.

    Raises:
        RowsError: a file cannot be read, is empty, or a line of it is no row of this schema.
    """
    rows = []
    for path in paths:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise RowsError(f"{path}: cannot be read ({reason}); give a file of pcaseg bench --out") from error
        if not lines:
            raise RowsError(f"{path}: holds no rows; give a file of pcaseg bench --out")
        for number, line in enumerate(lines, start=1):
            source = f"{path}, line {number}"
            row = load_typed(BenchRow, line, source, version=SCHEMA_VERSION, error=RowsError, mend=_MEND)
            _check_values(row, source)
            rows.append(row)
    return rows


def _check_values(row: BenchRow, source: str) -> None:
    """Checks what types cannot say: times, ratios and sizes are finite and above 0, samples make whole rounds."""
    for scope in ("engine", "end_to_end"):
        timing: Timing | None = getattr(row, scope)
        if timing is None:
            continue
        held = timing.latency
        if held.n < 1 or held.rounds < 1 or held.n != len(held.samples_ms) or held.n % held.rounds:
            raise RowsError(
                f"{source}: {scope} has {len(held.samples_ms)} samples, not {held.n} in {held.rounds} rounds; {_MEND}"
            )
        numbers = {name: getattr(held, name) for name in ("mean_ms", "min_ms", "p50_ms", "p90_ms", "p99_ms", "per_s")}
        numbers |= {f"samples_ms[{i}]": ms for i, ms in enumerate(held.samples_ms)}
        numbers |= asdict(timing.ratio) if timing.ratio else {}
        _check_positive(numbers, f"{source}: {scope}")
    numbers = {f"stages_ms {name}": ms + 1e-9 for name, ms in row.stages_ms.items()}
    numbers |= {"gmac": row.gmac, "least_mb": row.least_mb} if row.gmac and row.least_mb else {}
    numbers |= asdict(row.machine) if row.machine else {}
    _check_positive(numbers, f"{source}:")


def _check_positive(numbers: Mapping[str, float], where: str) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise RowsError(f"{where} {name} is {value}, not a number above 0; {_MEND}")
