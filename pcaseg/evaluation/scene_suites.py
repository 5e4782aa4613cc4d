"""Accuracy of a model on fresh scenes: seen names, held-out pairs, parts and plain names, in lists with hard
distractors and with all names at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm import tqdm

from pcaseg.data.scene_lists import evaluation_list
from pcaseg.data.scene_names import BACKGROUNDS, HELD_OUT, OBJECTS, PAIRS, PART_NAMES, SEEN_PAIRS, meanings
from pcaseg.data.scenes import Scene, Split, render_scene
from pcaseg.errors import PcasegError

if TYPE_CHECKING:
    from pcaseg.deploy.folded import FoldedPCASeg
    from pcaseg.model.network import PCASeg
    from pcaseg.runtime.segmenter import Segmenter

SegmentScene = Callable[[np.ndarray, Sequence[str]], np.ndarray]
"""An image (96, 96, 3) uint8 and T names -> labels (96, 96), indices of the names."""

SCENES = 500
LIST_LENGTH = 20
SEED = 1
"""Of the evaluation's scenes and lists; training and evaluation share no scene, whatever their seeds."""

SuiteName = Literal["seen", "held_out", "parts", "plain", "seen_all", "held_out_all"]


@dataclass(frozen=True)
class Suite:
    """One question to a model.

    Attributes:
        split: whose scenes.
        scored: the names whose intersection over union is averaged; others only compete.
        names: the list for every scene; None for one of `evaluation_list`.
    """

    split: Split
    scored: tuple[str, ...]
    names: tuple[str, ...] | None = None


SUITES: dict[SuiteName, Suite] = {
    "seen": Suite("evaluation", SEEN_PAIRS),
    "held_out": Suite("held-out", HELD_OUT),
    "parts": Suite("evaluation", PART_NAMES, (*PART_NAMES, *BACKGROUNDS)),
    "plain": Suite("evaluation", OBJECTS, (*OBJECTS, *BACKGROUNDS)),
    "seen_all": Suite("evaluation", SEEN_PAIRS, (*PAIRS, *BACKGROUNDS)),
    "held_out_all": Suite("held-out", HELD_OUT, (*PAIRS, *BACKGROUNDS)),
}
"""`seen` and `held_out` have lists of 20 that name everything in the scene; the rest are distractors, first those that
differ in colour or object alone. The list of `parts` is 20 names too, all that there are; `_all` are the 48 pairs and 5
backgrounds."""


@dataclass(frozen=True)
class SceneScores:
    """Scores of a suite, shares from 0 to 1.

    Attributes:
        miou: mean over the scored names that occur, of intersection over union in all scenes together.
        pixel_accuracy: over all labelled pixels, backgrounds among them.
        iou: of each scored name that occurs.
        scenes: how many.
        list_length: mean number of names.
    """

    miou: float
    pixel_accuracy: float
    iou: dict[str, float]
    scenes: int
    list_length: float


def evaluate_scenes(
    segment: SegmentScene,
    suites: Iterable[SuiteName] = tuple(SUITES),
    *,
    scenes: int = SCENES,
    seed: int = SEED,
    length: int = LIST_LENGTH,
    progress: bool = False,
) -> dict[SuiteName, SceneScores]:
    """Asks a model every suite.

    Args:
        segment: see `model_segment` and `segmenter_segment`.
        suites: which.
        scenes: of each suite.
        seed: of scenes and lists.
        length: of lists that a suite does not fix.
        progress: show a progress bar on standard error.

    Raises:
        PcasegError: an unknown suite, fewer than one scene, or labels of another size than the scene's.
    """
    chosen = tuple(suites)
    if unknown := [name for name in chosen if name not in SUITES]:
        raise PcasegError(f"suites: there is no {unknown[0]!r}; choose among {', '.join(SUITES)}")
    if scenes < 1:
        raise PcasegError(f"scenes={scenes}: give 1 or more")
    found = {}
    with tqdm(total=len(chosen) * scenes, desc="scenes", unit="scene", disable=not progress) as bar:
        for name in chosen:
            tally = _Tally()
            for index in range(scenes):
                scene = render_scene(index, seed=seed, split=SUITES[name].split)
                names = scene_list(name, scene, index, seed=seed, length=length)
                tally.add(names, segment(scene.image, names), scene.labels(names))
                bar.update()
            found[name] = tally.scores(SUITES[name].scored)
    return found


def scene_list(
    suite: SuiteName, scene: Scene, index: int, *, seed: int = SEED, length: int = LIST_LENGTH
) -> tuple[str, ...]:
    """The names that a suite asks for in scene `index`."""
    fixed = SUITES[suite].names
    if fixed is not None:
        return fixed
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]).spawn(1)[0])
    return tuple(evaluation_list(scene, "pair", length, rng))


def model_segment(model: PCASeg | FoldedPCASeg) -> SegmentScene:
    """A PyTorch model in one pass; each name is encoded once."""
    import torch

    from pcaseg.model.inference import resize

    like = next(iter(model.aggregator.state_dict().values()))
    with torch.no_grad():
        known = tuple(meanings())
        text = dict(zip(known, model.encode_text(known).to(like), strict=True))

    @torch.no_grad()
    def segment(image: np.ndarray, names: Sequence[str]) -> np.ndarray:
        pixels = torch.tensor(image).permute(2, 0, 1)[None].to(like)
        logits = model(pixels, torch.stack([text[name] for name in names]))
        return resize(logits.sigmoid(), image.shape[:2])[0].argmax(dim=0).cpu().numpy()

    return segment


def segmenter_segment(segmenter: Segmenter) -> SegmentScene:
    """A bundle on any backend."""

    def segment(image: np.ndarray, names: Sequence[str]) -> np.ndarray:
        segmenter.set_vocabulary(tuple(names))
        return segmenter(image).labels

    return segment


class _Tally:
    """Intersections and unions by name over scenes with different lists."""

    def __init__(self) -> None:
        self._hits: dict[str, int] = {}
        self._unions: dict[str, int] = {}
        self._true: dict[str, int] = {}
        self._lengths: list[int] = []

    def add(self, names: Sequence[str], labels: np.ndarray, truth: np.ndarray) -> None:
        if labels.shape != truth.shape:
            raise PcasegError(f"labels of shape {labels.shape} for a scene of {truth.shape}; give one per pixel")
        known, count = truth >= 0, len(names)
        flat = truth[known] * count + labels[known].astype(np.int64)
        confusion = np.bincount(flat, minlength=count**2).reshape(count, count)
        hits, true, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
        for table, values in ((self._hits, hits), (self._true, true), (self._unions, true + predicted - hits)):
            for name, value in zip(names, values.tolist(), strict=True):
                table[name] = table.get(name, 0) + value
        self._lengths.append(count)

    def scores(self, scored: Sequence[str]) -> SceneScores:
        iou = {name: self._hits[name] / self._unions[name] for name in scored if self._true.get(name, 0) > 0}
        return SceneScores(
            miou=float(np.mean(list(iou.values()))) if iou else float("nan"),
            pixel_accuracy=sum(self._hits.values()) / max(1, sum(self._true.values())),
            iou=iou,
            scenes=len(self._lengths),
            list_length=float(np.mean(self._lengths)),
        )
