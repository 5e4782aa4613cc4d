"""Gates: thresholds that a backend must reach to count as right."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pcaseg.configs import TRAINED, WeightsKind
from pcaseg.errors import PcasegError
from pcaseg.evaluation.accuracy import Accuracy

GATES: dict[str, dict[str, float]] = {
    "float32": {"relative_error": 1e-4, "label_agreement": 0.999},
    "float16": {"relative_error": 1e-2, "label_agreement": 0.99},
    "bfloat16": {"relative_error": 5e-2, "label_agreement": 0.97},
    "int8": {"label_agreement": 0.97},
    "fp8": {"label_agreement": 0.95},
}
"""What a backend must reach, by the precision it computes in. In eight bits single logits may be far off, and labels
right all the same."""

MIOU_DIFFERENCES = {"float32": 0.1, "float16": 0.5, "bfloat16": 0.5, "int8": 1.0, "fp8": 1.0}
"""By how many percent points the mIoU with a labelled set may differ from eager float32's."""

AT_MOST = ("relative_error", "miou_difference")
AT_LEAST = ("label_agreement", "boundary_agreement", "worst_iou")
"""What a gate may bound: from above (the mIoU difference by its absolute value, percent points), and from below."""


def default_gate(precision: str, weights: WeightsKind) -> dict[str, float]:
    """Thresholds for a backend of a precision.

    Weights that were never trained leave the classes near ties: below float32 their labels then say nothing about the
    backend, and only the logits are bounded; in eight bits nothing is.
    """
    gate = GATES[precision]
    bounded = gate if precision == "float32" or weights in TRAINED else ("relative_error",)
    return {name: bound for name, bound in gate.items() if name in bounded}


def labelled_gate(precision: str, weights: WeightsKind) -> dict[str, float]:
    """Further thresholds where a labelled set was measured; with untrained weights in float32 alone."""
    if precision not in MIOU_DIFFERENCES or (precision != "float32" and weights not in TRAINED):
        return {}
    return {"miou_difference": MIOU_DIFFERENCES[precision]}


def parse_gate(text: str) -> dict[str, float]:
    """Thresholds from `relative_error=1e-3,label_agreement=0.99`.

    Raises:
        PcasegError: an unknown name or something that is no number.
    """
    gate = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if name not in (*AT_MOST, *AT_LEAST) or not 0 <= number <= (1 if name in AT_LEAST else math.inf):
            raise PcasegError(
                f"gate {part.strip()!r}: give NAME=NUMBER, NAME one of {', '.join((*AT_MOST, *AT_LEAST))}; "
                "agreement and IoU are shares from 0 to 1"
            )
        gate[name] = number
    return gate


def gate_failures(accuracy: Accuracy, gate: Mapping[str, float]) -> str:
    """Describes what an accuracy misses of a gate; empty where it passes."""
    misses = []
    for name, bound in gate.items():
        value = getattr(accuracy, name)
        if value is None:
            misses.append(f"{name} was not measured (give --labelled)")
        elif name in AT_MOST and not abs(value) <= bound:
            misses.append(f"{name} {value:.3g} is above {bound:g}")
        elif name in AT_LEAST and not value >= bound:
            misses.append(f"{name} {value:.5f} is below {bound:g}")
    return "; ".join(misses)
