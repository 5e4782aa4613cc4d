"""Outputs of a request: what results become in the Open Inference Protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from pcaseg.runtime.palette import hex_colours
from pcaseg.runtime.result import Result

OUTPUTS = {
    "labels": ("UINT16", [-1, -1, -1]),
    "confidence": ("FP32", [-1, -1, -1]),
    "classes": ("BYTES", [-1]),
    "legend": ("BYTES", [1]),
}
"""Datatype and shape of each."""


def outputs_of(results: Sequence[Result]) -> dict[str, np.ndarray | list[bytes]]:
    """All outputs by name, of results that share a size and a vocabulary: arrays, and lists for BYTES."""
    return {
        "labels": np.stack([result.labels for result in results]),
        "confidence": np.stack([result.confidence for result in results]),
        "classes": [name.encode() for name in results[0].classes],
        "legend": [legend_of(results[0])],
    }


def legend_of(result: Result) -> bytes:
    """The classes as a list in JSON: `label`, `name`, `colour` of each, and of a part `object`, its object's name."""
    entries = []
    for label, (name, colour) in enumerate(zip(result.classes, hex_colours(result.classes), strict=True)):
        owner = label if result.object_of is None else result.object_of[label]
        part = {} if owner == label else {"object": result.classes[owner]}
        entries.append({"label": label, "name": name, "colour": colour} | part)
    return json.dumps(entries, ensure_ascii=False).encode()
