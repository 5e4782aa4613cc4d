"""Synonyms and parts on the scenes of `tiny`: `python -m pcaseg.benchmarks.studies.synonyms --out rows.json`.

Each object is asked for under several names at once, in one of the ways that synonyms can count, and scored as the one
class that it is. `kinds`: the eight pairs of a colour and the object, each of which covers a part of the class.
`unknown`: the object's own name with one that training never read. `parts`: objects with their parts, scored by part
and by object.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from tqdm import tqdm

from pcaseg.arguments import Parser, rows_file, up_to
from pcaseg.configs import Synonyms
from pcaseg.data.scene_names import BACKGROUNDS, COLOURS, OBJECTS, PARTS, pair_name
from pcaseg.data.scenes import render_scene
from pcaseg.deploy.folded import fold
from pcaseg.environment import write_rows
from pcaseg.errors import reported
from pcaseg.evaluation.confusion import Confusion
from pcaseg.evaluation.scene_suites import SCENES, SEED
from pcaseg.export.torch_backend import TorchBackend
from pcaseg.model.checkpoint import open_model
from pcaseg.runtime.segmenter import Segmenter

PRESET = "tiny"
UNKNOWN = {
    "car": "automobile", "house": "dwelling", "tree": "timber", "boat": "vessel", "ball": "sphere", "mug": "tankard",
}  # fmt: skip

Asked = Literal["name alone", "kinds", "unknown", "parts"]


@dataclass(frozen=True)
class SynonymRow:
    """One way to ask, on all scenes.

    Attributes:
        asked: see the module.
        synonyms: how they count; None where there are none.
        scenes: how many.
        miou: of the classes asked for, 0 to 1.
        object_miou: of the objects, where parts were asked for.
    """

    asked: Asked
    synonyms: Synonyms | None
    scenes: int
    miou: float
    object_miou: float | None = None


def entries(asked: Asked) -> list[str]:
    """The list of names of one way to ask, with the backgrounds behind the objects."""
    told = {
        "name alone": lambda one: one,
        "kinds": lambda one: "; ".join(pair_name(colour, one) for colour in COLOURS),
        "unknown": lambda one: f"{one}; {UNKNOWN[one]}",
        "parts": lambda one: f"{one}: {', '.join(PARTS[one])}",
    }[asked]
    return [*map(told, OBJECTS), *BACKGROUNDS]


def measure(asked: Asked, synonyms: Synonyms | None, *, scenes: int, progress: bool = False) -> SynonymRow:
    """Segments the scenes and scores them."""
    segmenter = Segmenter(TorchBackend(fold(open_model(PRESET))))
    vocabulary = segmenter.prepare(entries(asked), synonyms=synonyms)
    truth_names = vocabulary.names if asked == "parts" else (*OBJECTS, *BACKGROUNDS)
    whole = (*OBJECTS, *BACKGROUNDS)
    counts = Confusion(len(truth_names)), Confusion(len(whole))
    for index in tqdm(range(scenes), desc=f"{asked}, {synonyms}", unit="scene", disable=not progress):
        scene = render_scene(index, seed=SEED, split="evaluation")
        result = segmenter(scene.image, vocabulary=vocabulary)
        truth = scene.labels(whole)
        counts[1].add(result.object_labels, truth)
        if asked == "parts":
            # A pixel of a part belongs to the part; objects' names are truth where no part covers the pixel.
            parts = [name for name, one in zip(truth_names, vocabulary.objects, strict=True) if name not in whole]
            fine = scene.labels(parts)
            places = np.array([truth_names.index(name) for name in whole])
            known = np.where(truth >= 0, places[truth], -1)
            truth = np.where(fine >= 0, np.array([truth_names.index(name) for name in parts])[fine], known)
        counts[0].add(result.labels, truth)
    miou, object_miou = (one.scores().miou / 100 for one in counts)
    return SynonymRow(asked, synonyms, scenes, miou, object_miou if asked == "parts" else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows; returns 0."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.synonyms", description=__doc__)
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file of rows")
    parser.add_argument("--scenes", type=up_to(100_000), default=SCENES)
    options = parser.parse_args(arguments)
    ways: list[tuple[Asked, Synonyms | None]] = [("name alone", None)]
    ways += [(asked, synonyms) for asked in ("kinds", "unknown") for synonyms in get_args(Synonyms)]
    rows = [measure(*way, scenes=options.scenes, progress=True) for way in (*ways, ("parts", None))]
    write_rows(options.out, rows, preset=PRESET)
    for row in rows:
        print(f"{row.asked:12} {row.synonyms or '':6} mIoU {row.miou:.3f} {row.object_miou or ''}")
    print(f"{options.out}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
