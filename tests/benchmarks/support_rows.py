"""Rows as a run of the harness writes them, made up from formulas and a seed."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from pcaseg.benchmarks.rows import BenchRow, Cold, Latency, MachineRates, Point, Ratio, Timing
from pcaseg.evaluation.accuracy import Accuracy

VOCABULARIES = (1, 20, 59, 150, 256, 847)
HOSTILE = "<script>alert(1)</script>\"'&\x00\ud800 ünï"
POINT = Point(classes=20, strategy="single", images=1, precision="float32", threads=2, streams=1, height=480, width=640)
ENVIRONMENT = {
    "cpu": "AMD EPYC 9B14",
    "cores": "2",
    "system": "Linux x86_64",
    "python": "3.11.7",
    "torch": "2.14.1",
    "onnxruntime": "1.32.0",
    "pcaseg": "0.1.0",
    "git_commit": "1ee51a1c0ffee",
}
RUNS = {  # what it runs as, ms at rest, ms per class, precision, relative error
    "eager": ("PyTorch on cpu, float32", 3400.0, 43.0, "float32", 0.0),
    "eager-autocast": ("PyTorch on cpu, bfloat16", 2100.0, 29.0, "bfloat16", 7.1e-3),
    "eager-compiled": ("torch.compile on cpu, float32", 2900.0, 37.0, "float32", 1.4e-6),
    "folded": ("PyTorch on cpu, float32", 290.0, 12.5, "float32", 2.3e-6),
    "onnxruntime-cpu": ("ONNX Runtime CPUExecutionProvider", 240.0, 14.8, "float32", 3.1e-6),
}
SKIPPED = {
    "folded-triton": "Triton kernels need a CUDA device",
    "onnxruntime-cuda": "onnxruntime-gpu is not installed",
    "onnxruntime-tensorrt": "onnxruntime-gpu is not installed",
    "tensorrt": "TensorRT needs a CUDA device",
}
STAGES = (
    "decode",
    "preprocess",
    "copy in",
    "encoder",
    "cost volume",
    "spatial stream",
    "EPL",
    "decoder",
    "label map",
    "copy out",
)


def make_latency(
    median_ms: float, *, images: int = 1, rounds: int = 5, per_round: int = 6, noise=0.01, seed=0
) -> Latency:
    """Lognormal samples: rounds that drift and calls that scatter, each with a standard deviation of `noise`."""
    rng = np.random.default_rng(seed)
    drift = rng.normal(0, noise, (rounds, 1)) + rng.normal(0, noise, (rounds, per_round))
    samples = (median_ms * np.exp(drift)).reshape(-1)
    p50, p90, p99 = (float(np.percentile(samples, q)) for q in (50, 90, 99))
    return Latency(
        n=samples.size,
        rounds=rounds,
        mean_ms=float(samples.mean()),
        min_ms=float(samples.min()),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        per_s=1000 * images / p50,
        samples_ms=tuple(samples.tolist()),
    )


def make_row(
    backend: str = "folded", point: Point = POINT, *, slower: float = 1.0, noise=0.01, seed=0, **changes
) -> BenchRow:
    """A row that ran and is right; `changes` replace its fields."""
    runs, rest, per_class, precision, error = RUNS[backend]
    computed = max(point.classes, 256) if backend.startswith("eager") else min(point.classes, 256)
    engine = (rest + per_class * computed) * point.images**0.93 * slower
    eager = (3400.0 + 43.0 * max(point.classes, 256)) * point.images**0.93
    own = zlib.crc32(f"{backend} {point} {seed}".encode())

    shares = (0.002, 0.01, 0.0005, 0.3, 0.08, 0.28, 0.16, 0.14, 0.027, 0.0005)
    row = BenchRow(
        run="a1",
        created="2026-11-25T08:00:00Z",
        preset="eva-b-384",
        aggregation="parallel",
        weights="seeded",
        bundle_sha256="ab" * 32,
        engine_sha256=None,
        backend=backend,
        runs=runs,
        computation="published" if backend.startswith("eager") else "folded",
        precision=precision,
        point=point,
        status="ok",
        engine=_timing(engine, eager, point.images, noise, own),
        end_to_end=_timing(engine + 38, eager + 38, 1, noise, own) if point.images == 1 else None,
        stages_ms=_stages(backend, engine + 38, shares),
        cold=Cold(2.1, 3.4, 0.8, 1.2 * engine / 1000, 2400.0 + 3 * computed, None),
        accuracy=Accuracy(error, 1 - error / 20, 1 - error / 4, "bed", 1 - error * 3, None, None),
        gate={"max_relative_error": 1e-4, "min_label_agreement": 0.999},
        gmac=(150.0 if backend.startswith("eager") else 8.0) + 0.85 * computed,
        least_mb=630.0 + 2.2 * computed,
        machine=MachineRates(145.0, 13.2),
        environment=ENVIRONMENT,
    )
    return replace(row, **changes)


def _timing(median: float, eager: float, images: int, noise: float, seed: int) -> Timing:
    latency = make_latency(median, images=images, noise=noise, seed=seed)
    ratio = eager / latency.p50_ms
    return Timing(latency, Ratio(ratio, ratio * (1 - 3 * noise), ratio * (1 + 3 * noise)))


def _stages(backend: str, total: float, shares: tuple[float, ...]) -> dict[str, float]:
    if backend.startswith("onnxruntime"):
        return {"decode": 9.0, "preprocess": 21.0, "engine": total - 38, "label map": 8.0}
    return {name: total * share for name, share in zip(STAGES, shares, strict=True)}


def make_rows() -> list[BenchRow]:
    """A run on a CPU: a sweep of classes and one of images, skipped backends, one that failed, one that is noisy."""
    rows = []
    points = [replace(POINT, classes=classes) for classes in VOCABULARIES]
    points += [replace(POINT, images=images) for images in (2, 4, 8)]
    for point in points:
        rows += [make_row(backend, point) for backend in RUNS if backend != "eager-autocast"]
    for point in points[:4]:
        reason = "relative error 7.1e-03 is above 1.0e-04"
        rows.append(make_row("eager-autocast", point, status="failed", reason=reason))
        for backend, why in SKIPPED.items():
            rows.append(skipped_row(backend, why, point))
    noisy = next(row for row in rows if row.backend == "eager-compiled" and row.point == POINT)
    rows[rows.index(noisy)] = replace(noisy, noise="its rounds differ by 14 %, more than its ratio does from 1")
    return rows


def make_gpu_rows() -> list[BenchRow]:
    """A run in which all nine backends are right, each at its own speed: the fullest charts."""
    speeds = {"folded-triton": 0.2, "onnxruntime-cuda": 0.3, "onnxruntime-tensorrt": 0.11, "tensorrt": 0.1}
    rows = []
    for point in [replace(POINT, classes=classes) for classes in VOCABULARIES]:
        rows += [make_row(backend, point) for backend in RUNS]
        for backend, slower in speeds.items():
            row = make_row(
                "folded", point, slower=slower, precision="float16", cold=Cold(2.0, 30.0, 0.2, 0.1, 900.0, 4100.0)
            )
            rows.append(replace(row, backend=backend, runs=f"{backend} on GPU 0, float16"))
    return [replace(row, environment={**ENVIRONMENT, "gpu": "NVIDIA H100 80GB HBM3"}) for row in rows]


def skipped_row(backend: str, reason: str, point: Point = POINT) -> BenchRow:
    """A row of a backend that did not run."""
    nothing = dict.fromkeys(("engine", "end_to_end", "cold", "accuracy", "gmac", "least_mb"))
    changed = {"backend": backend, "runs": "", "status": "skipped", "reason": reason, "stages_ms": {}, "gate": {}}
    return replace(make_row("folded", point), **changed, **nothing)


def hostile_rows() -> list[BenchRow]:
    """Rows whose every free text tries to be more than text."""
    texts = dict.fromkeys(("preset", "aggregation", "runs", "noise", "run"), HOSTILE)
    accuracy = Accuracy(1e-6, 1.0, 1.0, HOSTILE, 1.0, None, None)
    environment = {HOSTILE: HOSTILE, "cpu": HOSTILE}

    def hostile(row: BenchRow, **changes) -> BenchRow:
        return replace(
            row,
            accuracy=accuracy,
            environment=environment,
            stages_ms={HOSTILE: 3.0},
            gate={HOSTILE: 1.0},
            **texts,
            **changes,
        )

    rows = [hostile(make_row(point=replace(POINT, classes=n)), precision=HOSTILE) for n in (5, 20)]
    failed = hostile(make_row("eager-autocast"), status="failed", reason=HOSTILE)
    return [*rows, failed, replace(failed, backend=HOSTILE, status="skipped", engine=None, end_to_end=None)]
