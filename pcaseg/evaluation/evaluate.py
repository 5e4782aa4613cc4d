"""Evaluation of networks on a labelled folder, in shards and processes."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from pcaseg.class_syntax import ClassTree
from pcaseg.configs import Strategy
from pcaseg.data.folders import LabelledFolder, open_data
from pcaseg.errors import PcasegError
from pcaseg.evaluation.counts import Evaluated, chosen_images, evaluate_images, names_sha256, read_counts, shard_path
from pcaseg.evaluation.results import check_results, collect_results, missing_images, result_paths, write_results
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.ray_pool import RayPool
from pcaseg.runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.sharedctypes import Synchronized

_POLL_S = 0.2


@dataclass(frozen=True)
class EvaluatedNetwork:
    """Network to evaluate, by name, so that each process opens its own.

    Attributes:
        subject: what files and tables call it.
        source: a bundle's path, or a model file or preset's name for the eager model.
        backend: of a bundle; None for the eager model.
        device: the backend's device; None for its default.
        options: what that backend alone understands.
        shortlist: classes of each window that are aggregated at most; None for the bundle's own, or 256.
    """

    subject: str
    source: str
    backend: str | None
    device: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    shortlist: int | None = None

    def open(self, strategy: Strategy | None, threads: int | None) -> Segmenter:
        """Its segmenter; `sliding` where neither `strategy` nor the bundle's graph says."""
        if self.backend is None:
            from pcaseg.export.torch_backend import TorchBackend  # a bundle is evaluated without torch
            from pcaseg.model.checkpoint import open_model

            model = TorchBackend(open_model(self.source, shortlist=self.shortlist), device=self.device, threads=threads)
            return Segmenter(model, strategy=strategy or "sliding")
        strategy = strategy or Bundle(self.source).manifest.strategy or "sliding"
        return Segmenter(
            self.source,
            self.backend,
            device=self.device,
            threads=threads,
            strategy=strategy,
            backend_options=self.options,
            shortlist=self.shortlist,
        )


@dataclass(frozen=True)
class EvaluationPlan:
    """One evaluation.

    Attributes:
        folder: images with true labels.
        out: folder of the results.
        strategy: None for the bundle's own, or `sliding`, which is the published protocol.
        images: how many images, spread over the folder; None for all.
        shard: (i, n): the i-th of n parts alone, from 1.
        processes: that share this machine.
        threads: CPU threads of each process; None shares the processors out.
        ray: workers of a cluster, in the place of processes.
    """

    folder: LabelledFolder
    out: Path
    strategy: Strategy | None = None
    images: int | None = None
    shard: tuple[int, int] = (1, 1)
    processes: int = 1
    threads: int | None = None
    ray: RayPool | None = None

    def indices(self) -> list[int]:
        """The images of all shards."""
        return chosen_images(len(self.folder), self.images)


@dataclass(frozen=True)
class Evaluation:
    """Outcome of an evaluation.

    Attributes:
        out: folder of the results.
        images: how many, over all shards.
        missing: how many of them no shard in `out` holds yet; there are results once it is 0.
        results: all measures, as in `results.json`; None while images are missing.
        failed: a sentence about each image of this shard that could not be evaluated, and so is missing.
    """

    out: Path
    images: int
    missing: int
    results: Mapping[str, Any] | None
    failed: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, Path]:
        """Paths of `results.json` and `results.md`, once there are results."""
        return result_paths(self.out)


def evaluate(
    data: str | LabelledFolder,
    *,
    out: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    bundle: str | os.PathLike[str] | None = None,
    root: Path | None = None,
    split: Literal["train", "val"] = "val",
    strategy: Strategy | None = None,
    images: int | None = None,
    shard: tuple[int, int] = (1, 1),
    processes: int = 1,
    backend: str = "onnxruntime",
    device: str | None = None,
    threads: int | None = None,
    backend_options: Mapping[str, object] | None = None,
    shortlist: int | None = None,
    ray: RayPool | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measures how well a model, a bundle or both segment a labelled data set, and writes what was found to `out`.

    A run that was cut off goes on where it stopped; shards of one evaluation add up in one folder. An image that
    cannot be used does not stop the others; there are no results without it, and the next run tries it again.

    Args:
        data: a name of `pcaseg datasets list`, a folder with `classes.txt`, `images/` and `labels/`, or an opened one.
        out: folder for counts, `results.json` and `results.md`.
        model: as `pcaseg.open_model` takes it; evaluated as the eager model.
        bundle: path of a bundle, run by `backend`.
        root: folder of all data sets, for a name.
        split: of a named data set.
        strategy: `sliding` or `single`; None for the bundle's own, or `sliding`, which is the published protocol.
        images: so many images, spread over the data set; None for all.
        shard: (i, n): the i-th of n parts alone, from 1.
        processes: that share this machine.
        backend: what runs the bundle, one of `pcaseg.runtime.backend_names()`.
        device: of the model and the backend; None for their defaults.
        threads: CPU threads of each process; None shares the processors out.
        backend_options: what the backend alone understands, such as `engine_precision`.
        shortlist: classes of each window that are aggregated at most, of a bundle as it was exported; None for the
            bundle's own, or 256.
        ray: workers of a cluster, in the place of processes; network and data are where they find them too.
        progress: show a progress bar on standard error.

    Raises:
        OutputError: `out` holds something else.
        PcasegError: neither model nor bundle is given, or one of them or the data set cannot be used.
    """
    networks = []
    if model is not None:
        networks.append(EvaluatedNetwork("eager", os.fspath(model), None, device, shortlist=shortlist))
    if bundle is not None:
        networks.append(
            EvaluatedNetwork(backend, os.fspath(bundle), backend, device, dict(backend_options or {}), shortlist)
        )
    if not networks:
        raise PcasegError("--model, --bundle: give one of them, or both to compare")
    check_results(Path(out))
    folder = data if isinstance(data, LabelledFolder) else open_data(data, root, split=split)
    plan = EvaluationPlan(folder, Path(out), strategy, images, shard, processes, threads, ray)
    failed: list[str] = []
    found = [evaluate_network(network, plan, failed=failed, progress=progress) for network in networks]
    missing, results = max(missing_images(plan.out, one) for one in found), None
    if not missing:
        results = collect_results(folder, plan.out, found)
        write_results(plan.out, results)
    return Evaluation(plan.out, found[0].images, missing, results, tuple(dict.fromkeys(failed)))


def evaluate_network(
    network: EvaluatedNetwork, plan: EvaluationPlan, *, failed: list[str] | None = None, progress: bool = False
) -> Evaluated:
    """Evaluates the images of a shard that no file in the folder of results holds yet.

    Args:
        network: to evaluate.
        plan: of which images, and where counts go.
        failed: takes a sentence about each image that cannot be used; None makes the first of them an error, when all
            others are done.
        progress: show a progress bar on standard error.

    Returns:
        What was evaluated; `read_counts` and `add_counts` give the confusion matrix of all shards that are there.

    Raises:
        PcasegError: the network cannot be used, or an image without `failed`, or `out` holds another evaluation.
    """
    _check_plan(plan)
    if plan.threads is None and plan.processes > 1:
        plan = replace(plan, threads=max(1, (os.cpu_count() or 1) // plan.processes))
    if plan.ray is not None:
        plan = replace(plan, threads=plan.ray.threads)
    segmenter = network.open(plan.strategy, plan.threads)
    evaluated = describe(network, segmenter, plan)
    todo = _todo(plan, evaluated)
    with tqdm(total=len(todo), desc=network.subject, unit="image", disable=not progress) as bar:
        if plan.ray is not None:
            from pcaseg.evaluation.evaluate_ray import run_on_ray

            refused = run_on_ray(plan.ray, network, plan, todo, evaluated, bar.update)
        elif plan.processes == 1:
            refused = _run(segmenter, plan, todo, evaluated, plan.shard, bar.update)
        else:
            del segmenter
            refused = _run_apart(network, plan, todo, evaluated, bar)
    if refused and failed is None:
        raise PcasegError(refused[0])
    if failed is not None:
        failed += refused
    return evaluated


def describe(network: EvaluatedNetwork, segmenter: Segmenter, plan: EvaluationPlan) -> Evaluated:
    """Describes an evaluation as files and reports say it."""
    manifest = segmenter.backend.manifest
    return Evaluated(
        subject=network.subject,
        preset=manifest.preset,
        weights=manifest.weights.kind,
        weights_sha256=manifest.weights.sha256,
        precision=manifest.precision,
        strategy=segmenter.strategy,
        shortlist=manifest.shortlist,
        data=plan.folder.source,
        images=len(plan.indices()),
        classes=len(plan.folder.label_names),
        names_sha256=names_sha256(plan.folder, plan.indices()),
    )


def _todo(plan: EvaluationPlan, evaluated: Evaluated) -> list[int]:
    """The images of this shard without counts in the folder of results."""
    done = read_counts(plan.out, evaluated)
    first, of = plan.shard
    return [index for index in plan.indices()[first - 1 :: of] if plan.folder.file_name(index) not in done]


def _run(
    segmenter: Segmenter,
    plan: EvaluationPlan,
    todo: Sequence[int],
    evaluated: Evaluated,
    shard: tuple[int, int],
    advance: Callable[[], object],
) -> list[str]:
    """The sentences about images that could not be evaluated."""
    failed: list[str] = []
    if not todo:
        return failed
    segmenter.set_vocabulary(ClassTree.plain(plan.folder.names))
    path = shard_path(plan.out, evaluated.subject, shard)
    evaluate_images(
        lambda image: segmenter(image).labels, plan.folder, todo, evaluated, path, advance=advance, failed=failed
    )
    return failed


def _run_apart(
    network: EvaluatedNetwork, plan: EvaluationPlan, todo: Sequence[int], evaluated: Evaluated, bar: tqdm[Any]
) -> list[str]:
    """Shares `todo` among processes, each a shard of its own; an error of a process ends all of them."""
    context, (first, of) = get_context("spawn"), plan.shard
    told, done = context.SimpleQueue(), context.Value("q", 0)
    workers, failed = [], []
    for part in range(plan.processes):
        shard = first + part * of, of * plan.processes
        arguments = network, plan, todo[part :: plan.processes], evaluated, shard, told, done
        workers.append(context.Process(target=_work, args=arguments, daemon=True))
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers) and not any(worker.exitcode for worker in workers):
            time.sleep(_POLL_S)
            bar.update(done.value - bar.n)
            failed += _told(told)  # before the pipe is full
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()  # no harm to one that has ended
                worker.join()
    bar.update(done.value - bar.n)
    failed += _told(told)
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    if codes:
        raise PcasegError(f"a process ended with code {codes[0]}, perhaps for lack of memory; try fewer --processes")
    return failed


def _told(queue: SimpleQueue[tuple[bool, list[str]]]) -> list[str]:
    """The sentences about images that processes have sent so far.

    Raises:
        PcasegError: one of them sent an error that ends all.
    """
    failed: list[str] = []
    while not queue.empty():
        ends_all, sentences = queue.get()
        if ends_all:
            raise PcasegError(sentences[0])
        failed += sentences
    return failed


def _work(
    network: EvaluatedNetwork,
    plan: EvaluationPlan,
    todo: Sequence[int],
    evaluated: Evaluated,
    shard: tuple[int, int],
    told: SimpleQueue[tuple[bool, list[str]]],
    done: Synchronized[int],
) -> None:
    """One process: opens its own network, counts its images in `done`, and tells errors that can be mended."""

    def advance() -> None:
        with done.get_lock():
            done.value += 1

    warnings.simplefilter("ignore")  # the report says what the weights are
    try:
        told.put((False, _run(network.open(plan.strategy, plan.threads), plan, todo, evaluated, shard, advance)))
    except PcasegError as error:
        told.put((True, [str(error)]))
        sys.exit(1)


def _check_plan(plan: EvaluationPlan) -> None:
    """Refuses numbers that mean nothing.

    Raises:
        PcasegError: names the option.
    """
    first, of = plan.shard
    if not 1 <= first <= of:
        raise PcasegError(f"shard {first}/{of}: give i/n with i from 1 to n")
    for name in ("processes", "images", "threads"):
        value = getattr(plan, name)
        if value is not None and value < 1:
            raise PcasegError(f"{name} {value}: give 1 or more")
