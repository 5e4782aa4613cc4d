"""What several test folders share: the goldens, and a small model that exports and runs in seconds."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import pickle
import shutil
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pcaseg.configs import Preset, Sliding, get_preset
from pcaseg.model.checkpoint import load_model
from pcaseg.model.cost_volume import best_classes, take_classes
from pcaseg.model.network import PCASeg

GOLDENS = Path(__file__).parent / "goldens"

_spec = importlib.util.spec_from_file_location("seeded_weights", GOLDENS / "seeded_weights.py")
seeded_weights = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(seeded_weights)

SMALL_EVA = replace(
    get_preset("eva-b-384"),
    name="small-eva",
    image_px=96,
    patch_px=8,
    vision_width=128,
    vision_blocks=4,
    vision_heads=2,
    pretrain_grid=7,
    taps=(1, 2),
    embed_dim=64,
    text_width=64,
    text_heads=2,
    text_layers=2,
    hidden=32,
    layers=1,
    window=6,
    decoder_widths=(32, 16),
    tap_widths=(64, 32),
    decoder_guidance_widths=(16, 8),
    sliding=Sliding(image_px=160, window_px=96, stride_px=64),
)
SMALL_OPENAI = replace(SMALL_EVA, name="small-openai", family="openai")


def small_model(preset: Preset = SMALL_EVA, **options) -> PCASeg:
    """A seeded model of a small preset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(preset, **options)


def made_once(path: Path, make: Callable[[Path], object]) -> Path:
    """A file or folder that one of the processes that run the tests makes, and all of them read.

    Args:
        path: where it stands, in a folder that they share.
        make: makes it at the path that it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            part = path.with_name(f"part-{path.name}")
            if part.is_dir():
                shutil.rmtree(part)
            make(part)
            part.rename(path)
    return path


class _ContentPickler(pickle.Pickler):
    """Writes tensors by their values, whatever memory they lie in."""

    def reducer_override(self, value):
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        data = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return bytes, (hashlib.sha256(data).digest(),), (type(value).__name__, value.dtype, tuple(value.shape))


def content_sha256(value: object) -> str:
    """A digest of everything that pickles as a part of a value: equal for equal content, in any process."""
    out = io.BytesIO()
    _ContentPickler(out).dump(value)
    return hashlib.sha256(out.getvalue()).hexdigest()


def published_state(names: str, folder: Path) -> dict[str, torch.Tensor]:
    """The goldens' weights by published name, mapped from a file that is written when it is first needed.

    Args:
        names: `eva_b` or `cat_b`.
        folder: where the file is kept.
    """
    listed, drawn = GOLDENS / f"names_{names}.json", Path(seeded_weights.__file__)
    version = zlib.crc32(listed.read_bytes() + drawn.read_bytes())

    def write(path: Path) -> None:
        shapes = json.loads(listed.read_text())
        values = {name: _drawn(name, shape) for name, shape in shapes.items()}
        save_file({name: value for name, value in values.items() if value is not None}, path)

    return load_file(made_once(folder / f"{names}-{version:08x}.safetensors", write))


def _drawn(name: str, shape: list[int]) -> torch.Tensor | None:
    """A weight in float32; None where the constructor's stays."""
    value = seeded_weights.seeded_value(name, shape)
    return None if value is None else torch.from_numpy(value).float()


def seeded_input(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The goldens' input of that seed."""
    return torch.from_numpy(seeded_weights.seeded_input(seed, shape)).to(dtype)


AGGREGATOR_CASES = pytest.mark.parametrize(
    ("case", "B", "T", "pooling"),
    [
        ("a_agg_b_t1", 1, 1, (1, 1)),
        ("a_agg_b_t20", 1, 20, (1, 1)),
        ("a_agg_b_t20_pool2", 1, 20, (2, 2)),
        ("d_agg_b_t7_batch2_sametext", 2, 7, (1, 1)),
    ],
)
"""The goldens of PCA-Seg's aggregator: file, images, classes, class pooling."""


def aggregator_inputs(
    B: int, T: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """The goldens' features, shared text and explicit guidance for the aggregator."""
    guidance = (
        seeded_input(1003, B, 512, 24, 24, dtype=dtype),
        seeded_input(1004, B, 256, 48, 48, dtype=dtype),
        seeded_input(1005, B, 128, 96, 96, dtype=dtype),
    )
    return seeded_input(1001, B, 512, 24, 24, dtype=dtype), seeded_input(1002, T, 1, 512, dtype=dtype), guidance


def assert_golden(case: str, output: str, full: torch.Tensor, *, tolerance: float | None = None) -> None:
    """Compares a full output with a golden's subsample and statistics, relative to its largest value."""
    golden = np.load(GOLDENS / f"{case}.npz")
    kind = "f64" if full.dtype == torch.float64 else "f32"
    tolerance = tolerance or (1e-12 if kind == "f64" else 2e-5)
    assert tuple(full.shape) == tuple(golden[f"shape_{output}"].astype(int))
    values = full.detach().numpy()
    index = eval(f"np.s_[{golden[f'idx_{output}']}]")
    expected, (mean, std, largest) = golden[f"{kind}_{output}"], golden[f"stat_{output}"]
    assert np.abs(values[index] - expected).max() <= tolerance * largest
    assert abs(values.mean() - mean) <= 2e-5 * largest
    assert abs(np.abs(values).max() - largest) <= 2e-5 * largest
    if values.size > 1:
        assert abs(values.std(ddof=1) - std) <= 2e-5 * largest


class ShortlistedColours(nn.Module):
    """Stands for the network: means over patches times a colour per class, of the K classes with the highest."""

    def __init__(self, shortlist: int) -> None:
        super().__init__()
        self.shortlist = shortlist

    def forward(self, windows: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """windows (N, 3, R, R), text (T, 3) -> (N, K, R / 8, R / 8), (N, K)."""
        means = F.avg_pool2d(windows, 8) / 32 - 4
        logits = (text @ means.flatten(2)).unflatten(2, means.shape[-2:])
        kept = best_classes(logits[:, None], self.shortlist)
        return take_classes(logits, kept), kept
