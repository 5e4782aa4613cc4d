"""Writes bundles: graphs, tokenizer and a manifest that vouches for every file, all or nothing."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from tqdm import tqdm

from pcaseg.class_names import PROMPT_TEMPLATE
from pcaseg.configs import CONTEXT_LENGTH, MAX_CLASSES, GraphKind, Strategy, check_choice
from pcaseg.errors import BundleError, OutputError, PcasegError
from pcaseg.export.graphs import OPSET, export_segmenter, export_text_encoder, segmenter_signature
from pcaseg.export.label_graph import export_label_graph, label_signature
from pcaseg.export.tokenizer import write_tokenizer
from pcaseg.files import atomic_path, sha256_of
from pcaseg.runtime.bundle import MANIFEST_NAME, SEGMENTER_NAME, TEXT_ENCODER_NAME, TOKENIZER_NAME, Bundle
from pcaseg.runtime.manifest import (
    LARGEST_SIDE_PX,
    FileEntry,
    GraphInfo,
    ImageSpec,
    Manifest,
    TextSpec,
    Weights,
)
from pcaseg.versions import installed_versions

if TYPE_CHECKING:
    from pcaseg.model.network import PCASeg

RECORDED_PACKAGES = ("torch", "onnx", "onnxscript", "open_clip_torch", "timm", "tokenizers", "numpy")


def write_bundle(
    model: PCASeg,
    out: str | os.PathLike[str],
    *,
    graph: GraphKind = "logits",
    strategy: Strategy | None = None,
    image_size: tuple[int, int] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Manifest:
    """Exports a model to a bundle.

    Args:
        model: of `pcaseg.load_model`.
        out: the folder to make, by custom `NAME.pcaseg`; with the ending `.zip` the same as one file.
        graph: `logits` of windows, for any strategy, or `labels` of whole images, all steps in the graph.
        strategy: what a label graph holds, `single` if None; not for logits.
        image_size: (height, width) in pixels that a label graph is fixed to; None for any; not for logits.
        overwrite: replace a bundle that stands there. Anything else that stands there is never replaced.
        progress: show a progress bar on standard error.

    Returns:
        The manifest, as written.

    Raises:
        OutputError: the destination exists or cannot be written; nothing is left behind.
        PcasegError: the model is not float32 on the CPU, of `check_graph_options`, or the traced graph breaks a promise
            of `export.graphs`.
    """
    out = Path(out)
    check_graph_options(graph, strategy, image_size)
    check_destination(out, overwrite=overwrite)
    weight = next(model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise PcasegError(f"export takes a float32 model on the CPU, not {weight.dtype} on {weight.device}; convert it")
    if graph == "labels":
        strategy = strategy or "single"
    zipped = out.suffix.lower() == ".zip"
    with atomic_path(out.with_suffix("") if zipped else out, folder=True, keep=not zipped) as folder:
        graphs = _write_files(model, folder, strategy=strategy, image_size=image_size, progress=progress)
        files = {name: _entry(folder / name) for name in (*graphs, TOKENIZER_NAME)}
        manifest = describe(model, files=files, graphs=graphs, strategy=strategy, image_size=image_size)
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        if zipped:
            _zip(folder, out)
    return manifest


def check_graph_options(graph: GraphKind, strategy: Strategy | None, image_size: tuple[int, int] | None) -> None:
    """Refuses options that contradict each other, before a model is loaded for them.

    Raises:
        PcasegError: an unknown choice, a strategy or a size for a graph of logits, or a side out of range.
    """
    check_choice(graph, GraphKind, what="graph")
    if graph == "logits" and strategy is not None:
        raise PcasegError(f"strategy={strategy!r}: a graph of logits runs any strategy; leave it out or ask for labels")
    if graph == "logits" and image_size is not None:
        raise PcasegError(f"image_size={image_size}: a graph of logits takes any; leave it out or ask for labels")
    if strategy is not None:
        check_choice(strategy, Strategy, what="strategy")
    if image_size is not None and not all(1 <= side <= LARGEST_SIDE_PX for side in image_size):
        raise PcasegError(f"image_size={image_size}: give a height and a width from 1 to {LARGEST_SIDE_PX} pixels")


def _write_files(
    model: PCASeg, folder: Path, *, strategy: Strategy | None, image_size: tuple[int, int] | None, progress: bool
) -> dict[str, GraphInfo]:
    """Writes everything but the manifest; gives the graphs' statistics by file name. A strategy asks for labels."""

    def segmenter(path: Path) -> onnx.ModelProto:
        if strategy is None:
            return export_segmenter(model, path)
        return export_label_graph(model, path, strategy=strategy, image_size=image_size)

    exports: dict[str, Callable[[Path], onnx.ModelProto]] = {
        SEGMENTER_NAME: segmenter,
        TEXT_ENCODER_NAME: lambda path: export_text_encoder(model, path),
    }
    graphs = {}
    with tqdm(total=len(exports) + 1, desc="export", unit="file", disable=not progress) as bar:
        for name, export in exports.items():
            graphs[name] = graph_info(export(folder / name).graph)
            bar.update()
        write_tokenizer(folder / TOKENIZER_NAME)
        bar.update()
    return graphs


def graph_info(graph: onnx.GraphProto) -> GraphInfo:
    """A graph's statistics, operators by name."""
    operators = Counter(node.op_type for node in graph.node)
    return GraphInfo(len(graph.node), dict(sorted(operators.items())))


def check_destination(out: Path, *, overwrite: bool) -> None:
    """Refuses to write over what may be precious.

    Raises:
        OutputError: `out` exists and is not a bundle, or is one and `overwrite` is False.
    """
    if not out.exists():
        return
    try:
        listed = {MANIFEST_NAME, *Bundle(out).manifest.files}
    except BundleError as error:
        raise OutputError(f"{out}: exists and is not a bundle; choose another name") from error
    foreign = [path.name for path in out.iterdir() if path.name not in listed] if out.is_dir() else []
    if foreign:
        raise OutputError(f"{out}: exists and holds {foreign[0]}, which is not the bundle's; choose another name")
    if not overwrite:
        raise OutputError(f"{out}: exists; choose another name or pass --overwrite")


def describe(
    model: PCASeg,
    *,
    files: dict[str, FileEntry],
    graphs: dict[str, GraphInfo],
    strategy: Strategy | None = None,
    image_size: tuple[int, int] | None = None,
) -> Manifest:
    """The manifest of a model's bundle; with no files and graphs, of the model alone. A strategy means labels."""
    preset, source = model.preset, model.source
    signature = segmenter_signature(preset) if strategy is None else label_signature(preset, image_size)
    return Manifest(
        preset=preset.name,
        aggregation=model.aggregation,
        dense_mode=model.dense_mode,
        weights=Weights(source.kind, source.path, source.sha256, source.seed),
        precision="float32",
        opset=OPSET,
        graph="logits" if strategy is None else "labels",
        strategy=strategy,
        image_size=image_size,
        image=ImageSpec(preset.image_px),
        sliding=preset.sliding,
        text=TextSpec(
            embed_dim=preset.embed_dim,
            prompts=preset.prompts,
            context_length=CONTEXT_LENGTH,
            template=PROMPT_TEMPLATE,
            max_classes=MAX_CLASSES,
            encoder_sha256=model.text_tower.fingerprint(),
        ),
        inputs=signature.inputs,
        outputs=signature.outputs,
        graphs=graphs,
        versions=installed_versions(("pcaseg", *RECORDED_PACKAGES)),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        files=files,
    )


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=sha256_of(path), bytes=path.stat().st_size)


def _zip(folder: Path, out: Path) -> None:
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
