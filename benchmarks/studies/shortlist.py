"""Shortlists on the scenes of `tiny`: `python -m pcaseg.benchmarks.studies.shortlist --out rows.json`.

Each scene runs with every length of the shortlist in turn, on the same names, so that scenes and drift hit all alike:
mIoU and its difference from all names (256 at most, as published), the share of labelled pixels whose class was kept,
and time. With the names of the scenes, of their parts, and with those of `ade20k_847` among them as distractors.
The file is written after each of these.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

import pcaseg
from pcaseg.arguments import CORES, Parser, rows_file, up_to
from pcaseg.benchmarks.intervals import Estimate, check_pairs, mean_interval
from pcaseg.class_lists import class_list
from pcaseg.class_names import first_synonym
from pcaseg.cleaning import reading
from pcaseg.configs import most_kept
from pcaseg.data.scenes import render_scene
from pcaseg.environment import write_rows
from pcaseg.errors import reported
from pcaseg.evaluation.agreement import timed
from pcaseg.evaluation.scene_suites import SCENES, SEED, SUITES, SuiteName
from pcaseg.model.checkpoint import open_model
from pcaseg.model.cost_volume import join_kept
from pcaseg.model.inference import resize

PRESET = "tiny"
LENGTHS = (4, 8, 16, 24, 32, None)
"""Of the shortlist; None for all names, 256 at most."""

ASKED: dict[str, tuple[SuiteName, str | None]] = {
    "seen": ("seen_all", None),
    "held-out": ("held_out_all", None),
    "parts": ("parts", None),
    "seen+847": ("seen_all", "ade20k_847"),
    "held-out+847": ("held_out_all", "ade20k_847"),
}
"""Suites, and the class list whose names are added to theirs as distractors."""


@dataclass(frozen=True)
class ShortlistRow:
    """One length on one list of names.

    Attributes:
        suite: whose scenes and scored names, see `pcaseg.evaluation.scene_suites`.
        names: T.
        shortlist: K; None for all names.
        scenes: how many.
        miou: of the scored names, over all scenes together, 0 to 1.
        difference: that minus the one of all names, with a 95 % interval over the scenes; None for all names.
        recall: share of the labelled pixels whose class was kept, 0 to 1.
        seconds: of each scene's call, from pixels to logits.
    """

    suite: SuiteName
    names: int
    shortlist: int | None
    scenes: int
    miou: float
    difference: Estimate | None
    recall: float
    seconds: list[float]


@dataclass
class _Counts:
    """Counts of one length, scene by scene: pixels by scored name."""

    hits: list[np.ndarray] = field(default_factory=list)
    unions: list[np.ndarray] = field(default_factory=list)
    true: list[np.ndarray] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    labelled: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, labels: np.ndarray, truth: np.ndarray, kept: np.ndarray, scored: Sequence[int]) -> None:
        known = truth >= 0
        right = [(labels == one) & (truth == one) for one in scored]
        self.hits.append(np.array([one.sum() for one in right]))
        self.true.append(np.array([(truth == one).sum() for one in scored]))
        self.unions.append(np.array([((labels == one) & known | (truth == one)).sum() for one in scored]))
        self.kept.append(int(np.isin(truth[known], kept).sum()))
        self.labelled.append(int(known.sum()))

    def mious(self) -> np.ndarray:
        """Mean IoU of all scenes together, then of all but each: (1 + scenes,)."""
        hits, unions, true = (np.array(values) for values in (self.hits, self.unions, self.true))
        without = np.concatenate([np.zeros_like(hits[:1]), hits]), np.concatenate([np.zeros_like(hits[:1]), unions])
        seen = true.sum(axis=0) - np.concatenate([np.zeros_like(true[:1]), true]) > 0
        iou = (hits.sum(axis=0) - without[0]) / np.maximum(1, unions.sum(axis=0) - without[1])
        return np.array([values[there].mean() for values, there in zip(iou, seen, strict=True)])


def paired_difference(mious: np.ndarray, base: np.ndarray) -> Estimate:
    """The difference of two mean IoUs with its interval, by Student's t on the jackknife's pseudo-values.

    Args:
        mious, base: (1 + scenes,) of all scenes and of all but each.
    """
    gaps = mious - base
    n = len(gaps) - 1
    return mean_interval(n * gaps[0] - (n - 1) * gaps[1:])


@torch.no_grad()
def measure(suite: SuiteName, distractors: Sequence[str], *, scenes: int, progress: bool = False) -> list[ShortlistRow]:
    """Runs a suite's scenes with every length.

    Raises:
        PcasegError: fewer than two scenes, of which there is no interval.
    """
    check_pairs("scenes", scenes)
    one, names = SUITES[suite], SUITES[suite].names
    assert names is not None  # of the suites that are asked
    known, scored = names, [names.index(name) for name in one.scored]
    taken = {reading(name) for name in known}
    names = (*known, *(name for name in distractors if reading(first_synonym(name)) not in taken))
    model = pcaseg.fold(open_model(PRESET))
    vocabulary = model.prepare_vocabulary(model.encode_text(names))
    counts = {K: _Counts() for K in LENGTHS if K is None or len(names) > K}

    def label(image: np.ndarray, K: int | None) -> tuple[np.ndarray, np.ndarray, float]:
        pixels = torch.tensor(image).permute(2, 0, 1)[None].float()
        seconds, (logits, kept) = timed(lambda: model.kept_logits(pixels, vocabulary, shortlist=most_kept(K)))
        maps, shared = join_kept(logits, kept, len(names))
        best = resize(maps.sigmoid(), pixels.shape[-2:])[0].argmax(dim=0)
        return shared[best].numpy(), kept[0].numpy(), seconds

    for index in tqdm(range(scenes), desc=f"{suite}, {len(names)} names", unit="scene", disable=not progress):
        scene = render_scene(index, seed=SEED, split=one.split)
        if index == 0:
            label(scene.image, None)  # warms up
        for K in counts:
            labels, kept, seconds = label(scene.image, K)
            counts[K].add(labels, scene.labels(known), kept, scored)
            counts[K].seconds.append(seconds)
    whole = counts[None].mious()
    return [
        ShortlistRow(
            suite=suite,
            names=len(names),
            shortlist=K,
            scenes=scenes,
            miou=float(found.mious()[0]),
            difference=None if K is None else paired_difference(found.mious(), whole),
            recall=sum(found.kept) / sum(found.labelled),
            seconds=found.seconds,
        )
        for K, found in counts.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows; returns 0."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.shortlist", description=__doc__)
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file of rows")
    parser.add_argument("--suites", nargs="+", choices=ASKED, default=list(ASKED), help="default: all")
    parser.add_argument("--scenes", type=up_to(100_000, least=2), default=SCENES, help="of each suite")
    parser.add_argument("--threads", type=up_to(CORES))
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    rows: list[ShortlistRow] = []
    for suite, distractors in (ASKED[name] for name in options.suites):
        rows += measure(suite, class_list(distractors) if distractors else (), scenes=options.scenes, progress=True)
        write_rows(options.out, rows, preset=PRESET, threads=torch.get_num_threads())
    print(f"{options.out}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
