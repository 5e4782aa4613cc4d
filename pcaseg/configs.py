"""The model configurations, one row each. No torch here: the command line lists them without it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from pcaseg.errors import PcasegError

Aggregation = Literal["parallel", "serial", "added"]
"""PCA-Seg; CAT-Seg; PCA-Seg's two streams added without an EPL, for ablations: eager only."""

DenseMode = Literal["csa", "qq"]
Synonyms = Literal["best", "mean"]
"""Of a class's synonyms, at each pixel the best one counts; or the mean of their embeddings stands for the class."""

Strategy = Literal["single", "sliding"]
Precision = Literal["float32", "float16"]
"""Of bundles."""

TorchPrecision = Literal["float32", "float16", "bfloat16"]
"""Of the folded model in PyTorch."""

LayerNormForm = Literal["operator", "decomposed"]
"""LayerNormalization as one operator, or as means and a root, for parsers that lack it (TensorRT before 8.6)."""

GraphKind = Literal["logits", "labels"]
"""What a segmenter graph computes: logits of windows, or labels and confidence of whole images."""
WeightsKind = Literal["checkpoint", "shipped", "clip-only", "seeded"]
"""Where weights come from: a whole checkpoint; the package itself; CLIP's from a file and the aggregator's from a seed;
all from a seed."""

TRAINED: Final = ("checkpoint", "shipped")
"""The kinds of weights whose labels mean something."""

DROPPED_LOGIT = -100.0
"""The logit of a class that is not among the kept ones."""

MAX_CLASSES: Final = 256
"""Classes the aggregator sees at once; larger vocabularies are cut to the best 256 per image."""

ADVISED_SHORTLIST: Final = 32
"""Of `--shortlist auto`: the advice of docs/shortlist.md, from what was measured there."""

MOST_CLASSES: Final = 65535
"""Classes of a vocabulary: labels have 16 bits, and 65535 stands for unlabelled."""

MOST_INDEXED: Final = 4096
"""Of graphs that choose classes and hold a table of their indices: label graphs with a shortlist, TensorRT's."""

OPSET = 20
"""Of exported graphs by default: the first ONNX opset with GELU as one operator."""

OPSETS = range(17, 26)
"""17 for old parsers (TensorRT 8.5, with decomposed LayerNorm); the last is the newest that the exporter writes."""

VOCABULARY_FORMAT = "pcaseg.vocabulary"
"""Value of `format` in the metadata of vocabulary files."""

LARGEST_SIDE_PX = 8192
"""Of images that graphs are fixed to; a bound that no real one comes near, so that no mistake fills the memory."""

CONTEXT_LENGTH = 77
"""Tokens per prompt."""

PIXEL_MEAN = (122.7709383, 116.7460125, 104.09373615)
PIXEL_STD = (68.5005327, 66.6321579, 70.3231630)
"""Statistics of RGB in 0..255 (published configuration)."""


@dataclass(frozen=True)
class Sliding:
    """The sliding-window evaluation protocol: image resized to `image_px`, windows of `window_px` at `stride_px`."""

    image_px: int = 640
    window_px: int = 384
    stride_px: int = 256

    def origins(self) -> list[tuple[int, int]]:
        """(top, left) of every window, row by row."""
        starts = range(0, self.image_px - self.window_px + 1, self.stride_px)
        return [(top, left) for top in starts for left in starts]

    def count(self) -> int:
        """Number of windows, however many."""
        return max(0, (self.image_px - self.window_px) // self.stride_px + 1) ** 2


@dataclass(frozen=True)
class Preset:
    """Everything that fixes the architecture and so the names and shapes of a checkpoint.

    Lengths are in pixels (`_px`) or channels; `taps` are 0-based block indices of the image tower. `class_padding` is
    the length to which attention over classes is padded: 256 as published, 0 for no padding, so that a class's logits
    depend on the other names alone and not on how many are missing.
    """

    name: str
    family: Literal["eva", "openai"]
    image_px: int
    patch_px: int
    vision_width: int
    vision_blocks: int
    vision_heads: int
    pretrain_grid: int
    taps: tuple[int, int]
    embed_dim: int
    text_width: int
    text_heads: int
    text_layers: int = 12
    prompts: int = 1
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    window: int = 12
    class_padding: Literal[0, 256] = MAX_CLASSES
    decoder_widths: tuple[int, int] = (64, 32)
    tap_widths: tuple[int, int] = (256, 128)
    decoder_guidance_widths: tuple[int, int] = (32, 16)
    sliding: Sliding = Sliding()

    @property
    def grid(self) -> int:
        """Side of the feature grid at the preset's own input size."""
        return self.image_px // self.patch_px


_EVA_B = Preset(
    name="eva-b-384", family="eva", image_px=384, patch_px=16,
    vision_width=768, vision_blocks=12, vision_heads=12, pretrain_grid=14, taps=(3, 7),
    embed_dim=512, text_width=512, text_heads=8,
)  # fmt: skip
_EVA_L = Preset(
    name="eva-l-336", family="eva", image_px=336, patch_px=14,
    vision_width=1024, vision_blocks=24, vision_heads=16, pretrain_grid=24, taps=(7, 15),
    embed_dim=768, text_width=768, text_heads=12,
)  # fmt: skip
_TINY = Preset(
    name="tiny", family="eva", image_px=96, patch_px=8,
    vision_width=128, vision_blocks=4, vision_heads=2, pretrain_grid=12, taps=(1, 2),
    embed_dim=64, text_width=48, text_heads=2, text_layers=1,
    hidden=32, layers=1, window=6, class_padding=0,
    decoder_widths=(32, 16), tap_widths=(64, 32), decoder_guidance_widths=(16, 8),
    sliding=Sliding(image_px=160, window_px=96, stride_px=64),
)  # fmt: skip
"""For scenes that the project renders itself. Its text tower keeps CLIP's whole token table, 48 wide, so that any name
has an embedding and checkpoints have the one layout; in float16 the model takes 7.4 MB."""
_PRESETS = {
    preset.name: preset
    for preset in (
        _EVA_B,
        _EVA_L,
        replace(_EVA_B, name="openai-b-384", family="openai"),
        replace(_EVA_L, name="openai-l-336", family="openai"),
        _TINY,
    )
}


def presets() -> tuple[str, ...]:
    """Names of the presets.

    >>> presets()
    ('eva-b-384', 'eva-l-336', 'openai-b-384', 'openai-l-336', 'tiny')
    """
    return tuple(_PRESETS)


def get_preset(preset: str | Preset) -> Preset:
    """The preset of that name; a `Preset` passes through.

    Raises:
        PcasegError: no preset has that name.
    """
    if isinstance(preset, Preset):
        return preset
    if preset not in _PRESETS:
        raise PcasegError(f"{preset}: no such preset; choose one of {', '.join(_PRESETS)}")
    return _PRESETS[preset]


def most_kept(shortlist: int | None) -> int:
    """Classes that are aggregated at most: those of a shortlist, or the published 256 where there is none.

    >>> most_kept(32), most_kept(None)
    (32, 256)

    Raises:
        PcasegError: no whole number from 1 to 256.
    """
    if shortlist is None:
        return MAX_CLASSES
    if type(shortlist) is not int or not 1 <= shortlist <= MAX_CLASSES:
        raise PcasegError(f"shortlist={shortlist!r}: give 1 to {MAX_CLASSES} classes, or None for {MAX_CLASSES}")
    return shortlist


def check_choice(value: str, choices: object, *, what: str) -> None:
    """Refuses a `value` that is not among the strings of the `Literal` type `choices`.

    Raises:
        PcasegError: names the option and its choices.
    """
    if value not in get_args(choices):
        raise PcasegError(f"{what}={value!r}: choose one of {', '.join(get_args(choices))}")
