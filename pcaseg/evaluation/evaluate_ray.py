"""Evaluation on a cluster: workers count, the driver alone writes, so that every image has one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pcaseg.class_syntax import ClassTree
from pcaseg.evaluation.counts import Evaluated, ImageCounts, append_counts, count_image, open_counts, shard_path
from pcaseg.runtime.batch import reason_of
from pcaseg.runtime.ray_pool import RayPool, Work, died

if TYPE_CHECKING:
    from pcaseg.evaluation.evaluate import EvaluatedNetwork, EvaluationPlan


def run_on_ray(
    pool: RayPool,
    network: EvaluatedNetwork,
    plan: EvaluationPlan,
    todo: Sequence[int],
    evaluated: Evaluated,
    advance: Callable[[], object],
) -> list[str]:
    """Evaluates images and adds a line for each; gives the sentences about those that could not be evaluated.

    Raises:
        PcasegError: as `RayPool.run`, or the counts cannot be written.
    """
    failed: dict[int, str] = {}
    path = shard_path(plan.out, evaluated.subject, plan.shard)
    if todo:
        open_counts(path, evaluated)
    for index, outcome in pool.run(partial(_open, network, plan), [{"index": index} for index in todo]):
        image = plan.folder.pairs[todo[index]][0]
        if "died" in outcome:
            failed[index] = died(image)
        elif "failed" in outcome:
            failed[index] = outcome["failed"]
        else:
            cells, pixels = tuple(outcome["cells"]), tuple(outcome["pixels"])
            append_counts(path, ImageCounts(plan.folder.file_name(todo[index]), cells, pixels))
        advance()
    return [failed[index] for index in sorted(failed)]


def _open(network: EvaluatedNetwork, plan: EvaluationPlan) -> Work:
    """Opens the network in a worker: its work."""
    segmenter = network.open(plan.strategy, plan.threads)
    segmenter.set_vocabulary(ClassTree.plain(plan.folder.names))

    def work(item: Mapping[str, Any]) -> dict[str, Any]:
        found = count_image(lambda image: segmenter(image).labels, plan.folder, item["index"])
        if isinstance(found, ImageCounts):
            return {"cells": found.cells, "pixels": found.pixels}
        return {"failed": reason_of(found, plan.folder.pairs[item["index"]][0])}

    return work
