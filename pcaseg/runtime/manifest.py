"""Manifests of bundles: `manifest.json` as frozen dataclasses, checked field by field when read."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pcaseg.configs import (
    CONTEXT_LENGTH,
    LARGEST_SIDE_PX,
    Aggregation,
    DenseMode,
    GraphKind,
    LayerNormForm,
    Precision,
    Sliding,
    Strategy,
    WeightsKind,
    most_kept,
)
from pcaseg.errors import BundleError, PcasegError
from pcaseg.typed_json import ADDED_LATER, load_typed, shown

SCHEMA_VERSION = 2

MOST_WINDOWS = 256
"""A bound that no real bundle comes near: a wrong manifest must not fill the memory."""

MOST_FILE_BYTES = 1 << 40
"""As `MOST_WINDOWS`, of one file."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_EXPORT_ANEW = "export the bundle anew"


@dataclass(frozen=True)
class Weights:
    """Origin of the weights. `sha256` is the source file's, or the tensors' where all were seeded."""

    kind: WeightsKind
    path: str | None
    sha256: str
    seed: int | None


@dataclass(frozen=True)
class ImageSpec:
    """The network's input: square, side `size_px`."""

    size_px: int


@dataclass(frozen=True)
class TextSpec:
    """The text encoder: its embeddings, its prompt, and the hash that vocabulary files are checked against."""

    embed_dim: int
    prompts: int
    context_length: int
    template: str
    max_classes: int
    encoder_sha256: str


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph; an axis is a length or the name of a dynamic one."""

    shape: tuple[int | str, ...]
    dtype: str
    meaning: str


@dataclass(frozen=True)
class FileEntry:
    """Hash and size of one file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class GraphInfo:
    """Contents of one graph: its nodes, and how many there are of each operator."""

    nodes: int
    operators: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """The whole of `manifest.json`.

    Attributes:
        strategy: what a label graph holds; None for logits, where the runtime chooses.
        image_size: (height, width) in pixels that a label graph is fixed to; None where it takes any.
        graphs: of each `.onnx` file.
        shortlist: classes of each window that the graph aggregates at most; None for 256. With a number, a graph of
            logits gives those of the kept classes alone, and which they are.
    """

    preset: str
    aggregation: Aggregation
    dense_mode: DenseMode
    weights: Weights
    precision: Precision
    opset: int
    layer_norm: LayerNormForm
    graph: GraphKind
    strategy: Strategy | None
    image_size: tuple[int, int] | None
    image: ImageSpec
    sliding: Sliding
    text: TextSpec
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    graphs: dict[str, GraphInfo]
    versions: dict[str, str]
    files: dict[str, FileEntry]
    shortlist: int | None = field(default=None, metadata=ADDED_LATER)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """The file's text, version first."""
        fields = {"schema_version": self.schema_version} | dataclasses.asdict(self)
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> Manifest:
        """Reads what `to_json` wrote. Fields that this version does not know are ignored.

        Args:
            text: contents of the file.
            source: what the messages call it.

        Raises:
            BundleError: not JSON, another schema version, or a field is missing, ill-typed or out of range.
        """
        manifest = load_typed(cls, text, source, version=SCHEMA_VERSION, error=BundleError, mend=_EXPORT_ANEW)
        _check_values(manifest, source)
        return manifest


def check_file_name(name: str, *, source: str) -> None:
    """Refuses a file name that leads out of the bundle, or means different files on different systems.

    Raises:
        BundleError: absolute, with `..`, `.`, an empty part, a backslash, a colon or a control character.
    """
    parts = name.split("/")
    if (
        not name.isprintable()
        or set(name) & set("\\:")
        or PurePosixPath(name).is_absolute()
        or set(parts) & set(("", ".", ".."))
    ):
        raise BundleError(f"{source}: files has the unsafe name {name!r}; do not use this bundle, {_EXPORT_ANEW}")


def _check_values(manifest: Manifest, source: str) -> None:
    """Checks what types cannot say: positive sizes, hashes, one `{}` in the prompt, windows that cover the canvas."""
    sliding, text = manifest.sliding, manifest.text
    positive: Mapping[str, int] = {
        "opset": manifest.opset,
        "image.size_px": manifest.image.size_px,
        "sliding.image_px": sliding.image_px,
        "sliding.window_px": sliding.window_px,
        "sliding.stride_px": sliding.stride_px,
        "text.embed_dim": text.embed_dim,
        "text.prompts": text.prompts,
        "text.context_length": text.context_length,
        "text.max_classes": text.max_classes,
    }
    for where, number in positive.items():
        if number < 1:
            raise BundleError(f"{source}: {where} is {number}, not 1 or more; {_EXPORT_ANEW}")
    if max(manifest.image.size_px, sliding.image_px) > LARGEST_SIDE_PX or sliding.count() > MOST_WINDOWS:
        raise BundleError(
            f"{source}: {manifest.image.size_px} px inputs and {sliding} are beyond {LARGEST_SIDE_PX} px or "
            f"{MOST_WINDOWS} windows; {_EXPORT_ANEW}"
        )
    hashes = {"weights.sha256": manifest.weights.sha256, "text.encoder_sha256": text.encoder_sha256}
    hashes |= {f"files.{name}.sha256": entry.sha256 for name, entry in manifest.files.items()}
    for where, number, wanted in (
        ("text.prompts", text.prompts, 1),
        ("text.context_length", text.context_length, CONTEXT_LENGTH),
    ):
        if number != wanted:
            raise BundleError(f"{source}: {where} is {number}, where this version embeds with {wanted}; {_EXPORT_ANEW}")
    for where, digest in hashes.items():
        if not _SHA256.fullmatch(digest):
            raise BundleError(f"{source}: {where} is not a SHA-256 ({shown(digest)}); {_EXPORT_ANEW}")
    if text.template.count("{}") != 1:
        raise BundleError(f"{source}: text.template {shown(text.template)} lacks one {{}}; {_EXPORT_ANEW}")
    _check_graphs(manifest, source)
    rest = sliding.image_px - sliding.window_px
    if rest < 0 or rest % sliding.stride_px or sliding.stride_px > sliding.window_px:
        raise BundleError(f"{source}: sliding windows {sliding} do not cover the image; {_EXPORT_ANEW}")
    for name, entry in manifest.files.items():
        check_file_name(name, source=source)
        if not 0 <= entry.bytes <= MOST_FILE_BYTES:
            raise BundleError(f"{source}: files.{name}.bytes is {entry.bytes}, the size of no file; {_EXPORT_ANEW}")


def _check_graphs(manifest: Manifest, source: str) -> None:
    """Checks what a label graph must say and a logit graph must not, and that the statistics add up."""
    if (manifest.graph == "labels") != (manifest.strategy is not None):
        raise BundleError(
            f"{source}: strategy is {shown(manifest.strategy)} for a graph of {manifest.graph}; {_EXPORT_ANEW}"
        )
    try:
        most_kept(manifest.shortlist)
    except PcasegError as error:
        raise BundleError(f"{source}: {error}; {_EXPORT_ANEW}") from error
    if manifest.image_size is not None:
        if manifest.graph != "labels":
            raise BundleError(f"{source}: image_size is set for a graph of {manifest.graph}; {_EXPORT_ANEW}")
        if not all(1 <= side <= LARGEST_SIDE_PX for side in manifest.image_size):
            raise BundleError(
                f"{source}: image_size is {shown(manifest.image_size)}, not 1 to {LARGEST_SIDE_PX} px; {_EXPORT_ANEW}"
            )
    for name, info in manifest.graphs.items():
        if name not in manifest.files:
            raise BundleError(f"{source}: graphs.{name} is of no file of the bundle; {_EXPORT_ANEW}")
        if info.nodes != sum(info.operators.values()) or any(count < 1 for count in info.operators.values()):
            raise BundleError(f"{source}: graphs.{name} counts {info.nodes} nodes wrongly; {_EXPORT_ANEW}")
