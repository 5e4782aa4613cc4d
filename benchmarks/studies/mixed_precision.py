"""Float16 with and without float32 regions: `python -m pcaseg.benchmarks.studies.mixed_precision --out rows.json`.

The folded float32 model runs on photographs. Every norm, softmax and class attention on the way is computed again from
its inputs, rounded to float16: in float64 (the truth), as a float32 region (float32 inside, float16 out) and
without one (each intermediate result rounded to float16). Sums themselves are exact enough in either: an engine that
also adds up in float16 does worse than what is shown here.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

import pcaseg
from pcaseg.arguments import Parser, rows_file, up_to
from pcaseg.class_lists import first_names
from pcaseg.configs import Preset
from pcaseg.environment import write_rows
from pcaseg.errors import reported
from pcaseg.evaluation.agreement import photographs
from pcaseg.kernels.registry import plain_operators
from pcaseg.model.inference import image_tensor, resize

Formula = Callable[..., Tensor]


@dataclass
class MixedPrecisionRow:
    """One kind of float32 region over all its runs and photographs.

    Attributes:
        island: the operator.
        places: how often it ran.
        error, error_without: largest difference from float64 over the largest true value, with float32 inside and
            without; infinite where float16 overflowed.
        largest: the largest intermediate value; float16 ends at 65504.
    """

    island: str
    places: int = 0
    error: float = 0.0
    error_without: float = 0.0
    largest: float = 0.0


def normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Over the last axis, step by step, in x's type; and the squares, which are the largest values on the way."""
    centred = x - x.mean(dim=-1, keepdim=True)
    squares = centred * centred
    return centred / (squares.mean(dim=-1, keepdim=True) + eps).sqrt(), squares


def softmax(x: Tensor) -> tuple[Tensor, Tensor]:
    """Over the last axis, step by step; and its input."""
    powers = (x - x.amax(dim=-1, keepdim=True)).exp()
    return powers / powers.sum(dim=-1, keepdim=True), x


def length(x: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean, over the last axis; and the sum of squares."""
    total = (x * x).sum(dim=-1, keepdim=True)
    return total.sqrt(), total


def class_attention(q: Tensor, k: Tensor, v: Tensor, matrix: Tensor, normaliser: Tensor) -> tuple[Tensor, Tensor]:
    """Linear attention with the padding's share of both sums given; and the matrix of sums."""
    sums = k.transpose(-1, -2) @ v + matrix
    return (q @ sums) / (q @ (k.sum(dim=-2)[..., None] + normaliser)), sums


class PrecisionRecorder(TorchFunctionMode):
    """Compares every operator of a float32 region that a run passes."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, MixedPrecisionRow] = {}
        self._attention: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            if func is F.layer_norm:
                eps = kwargs.get("eps", args[4] if len(args) > 4 else 1e-5)
                self._compare("LayerNorm", lambda x: normalise(x, eps), args[0])
            elif func is F.group_norm:
                x, groups = args[:2]
                self._compare("GroupNorm", lambda x: normalise(x, 1e-5), x.unflatten(1, (groups, -1)).flatten(2))
            elif func is F.scaled_dot_product_attention:
                scale = kwargs.get("scale") or args[0].shape[-1] ** -0.5
                self._compare("softmax", softmax, args[0] @ args[1].transpose(-1, -2) * scale)
            elif func in (torch.softmax, Tensor.softmax, F.softmax):
                self._compare("softmax", softmax, args[0].movedim(kwargs.get("dim", args[1] if args[1:] else -1), -1))
            elif func is F.normalize:
                dim = kwargs.get("dim", args[2] if len(args) > 2 else 1)
                self._compare("cosine norm", length, args[0].movedim(dim, -1))
            elif func in (Tensor.matmul, torch.matmul, Tensor.__matmul__) and args[0].dim() == 5:
                self._class_attention(args[0], args[1])
        return out

    def _class_attention(self, a: Tensor, b: Tensor) -> None:
        """Three products make one class attention: k^T v, q times the normaliser, q times the matrix."""
        self._attention.append((a, b))
        if len(self._attention) == 3:
            (k, v), (_, normaliser), (q, matrix) = self._attention
            k = k.transpose(-1, -2)
            padding = matrix - k.transpose(-1, -2) @ v, normaliser - k.sum(dim=-2)[..., None]
            self._compare("class attention", class_attention, q, k, v, *padding)
            self._attention = []

    def _compare(self, operator: str, formula: Callable[..., tuple[Tensor, Tensor]], *inputs: Tensor) -> None:
        row = self.rows.setdefault(operator, MixedPrecisionRow(operator))
        halves = [x.half() for x in inputs]
        truth, intermediate = formula(*(x.double() for x in halves))
        row.places += 1
        row.largest = max(row.largest, float(intermediate.abs().max()))
        row.error = max(row.error, _error(formula(*(x.float() for x in halves))[0].half(), truth))
        row.error_without = max(row.error_without, _error(formula(*halves)[0], truth))


def _error(values: Tensor, truth: Tensor) -> float:
    error = float((values.double() - truth).abs().max() / truth.abs().max())
    return error if values.isfinite().all() else float("inf")


@torch.no_grad()
def measure(preset: str | Preset, *, classes: int) -> list[MixedPrecisionRow]:
    """All float32 regions of a preset with seeded weights on the photographs, with the first names of ade20k_847."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = pcaseg.load_model(preset)
    folded = pcaseg.fold(model)
    text = model.encode_text(first_names(classes))
    recorder = PrecisionRecorder()
    for image in photographs().values():
        window = resize(image_tensor(image).float()[None], model.preset.image_px)
        with plain_operators(), recorder:
            folded(window, text)
    return list(recorder.rows.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the rows."""
    parser = Parser(prog="python -m pcaseg.benchmarks.studies.mixed_precision", description=__doc__)
    parser.add_argument("--out", type=rows_file, required=True, help="JSON file to write")
    parser.add_argument("--preset", default="eva-b-384")
    parser.add_argument("--classes", type=up_to(847), default=20)
    options = parser.parse_args(arguments)
    rows = measure(options.preset, classes=options.classes)
    write_rows(options.out, rows, preset=options.preset, weights="seeded", classes=options.classes)
    for row in rows:
        print(f"{row.island:16} {row.places:4} {row.error:.1e} {row.error_without:.1e} largest {row.largest:.3g}")
    return 0


if __name__ == "__main__":
    sys.exit(reported(main))
