"""Writes bundles: graphs, tokenizer and a manifest that vouches for every file, all or nothing."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch
from tqdm import tqdm

from pcaseg.class_names import PROMPT_TEMPLATE
from pcaseg.configs import CONTEXT_LENGTH, MAX_CLASSES
from pcaseg.errors import BundleError, OutputError, PcasegError
from pcaseg.export.graphs import export_segmenter, export_text_encoder, segmenter_signature
from pcaseg.export.label_graph import export_label_graph, label_signature
from pcaseg.export.options import DEFAULTS, ExportOptions
from pcaseg.export.plugins.graph import export_plugin_segmenter
from pcaseg.export.tokenizer import write_tokenizer
from pcaseg.files import atomic_path, refuse_foreign, sha256_of
from pcaseg.paths import entries, exists, is_folder, size_of
from pcaseg.runtime.bundle import (
    MANIFEST_NAME,
    PLUGIN_SEGMENTER_NAME,
    SEGMENTER_NAME,
    TEXT_ENCODER_NAME,
    TOKENIZER_NAME,
    Bundle,
)
from pcaseg.runtime.engines import ENGINES_NAME
from pcaseg.runtime.manifest import (
    FileEntry,
    GraphInfo,
    ImageSpec,
    Manifest,
    TextSpec,
    Weights,
)
from pcaseg.versions import installed_versions

if TYPE_CHECKING:
    from pcaseg.deploy.folded import FoldedPCASeg
    from pcaseg.model.network import PCASeg

RECORDED_PACKAGES = ("torch", "onnx", "onnxscript", "onnxslim", "open_clip_torch", "timm", "tokenizers", "numpy")


def write_bundle(
    model: PCASeg,
    out: str | os.PathLike[str],
    *,
    options: ExportOptions = DEFAULTS,
    overwrite: bool = False,
    progress: bool = False,
) -> Manifest:
    """Exports a model to a bundle.

    Args:
        model: of `pcaseg.load_model`.
        out: the folder to make, by custom `NAME.pcaseg`; with the ending `.zip` the same as one file.
        options: what the segmenter graph is, and how it is written; without a shortlist it has the model's own.
        overwrite: replace a bundle that stands there. Anything else that stands there is never replaced.
        progress: show a progress bar on standard error.

    Returns:
        The manifest, as written.

    Raises:
        OutputError: the destination exists or cannot be written; nothing is left behind.
        PcasegError: the model is not float32 on the CPU, or the traced graph breaks a promise of `export.graphs`.
    """
    out = Path(out)
    if options.shortlist is None and model.shortlist is not None:
        options = replace(options, shortlist=model.shortlist)
    check_destination(out, overwrite=overwrite)
    weight = next(model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise PcasegError(f"export takes a float32 model on the CPU, not {weight.dtype} on {weight.device}; convert it")
    zipped = out.suffix.lower() == ".zip"
    with atomic_path(out.with_suffix("") if zipped else out, folder=True, keep=not zipped) as folder:
        graphs = _write_files(model, folder, options, progress=progress)
        files = {name: _entry(folder / name) for name in (*graphs, TOKENIZER_NAME)}
        manifest = describe(model, options, files=files, graphs=graphs)
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        if zipped:
            _zip(folder, out)
    return manifest


def _write_files(model: PCASeg, folder: Path, options: ExportOptions, *, progress: bool) -> dict[str, GraphInfo]:
    """Writes everything but the manifest; gives the graphs' statistics by file name."""
    segmenter = export_segmenter if options.graph == "logits" else export_label_graph
    exports: dict[str, Callable[[Path], onnx.ModelProto]] = {
        SEGMENTER_NAME: lambda path: segmenter(model, path, options=options),
        TEXT_ENCODER_NAME: lambda path: export_text_encoder(model, path, options=options),
    }
    if options.plugins == "with":
        exports[PLUGIN_SEGMENTER_NAME] = lambda path: export_plugin_segmenter(model, path, options=options)
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


def _is_bundle(path: Path) -> bool:
    try:
        Bundle(path)
    except BundleError:
        return False
    return True


def check_destination(out: Path, *, overwrite: bool) -> None:
    """Refuses to write over what may be precious.

    Raises:
        OutputError: `out` exists and is not a bundle, or is one and `overwrite` is False.
    """
    if not exists(out, error=OutputError):
        return
    refuse_foreign(out, _is_bundle, "a bundle")
    listed = {MANIFEST_NAME, ENGINES_NAME, *Bundle(out).manifest.files}  # engines are stale with their bundle
    foreign = [path.name for path in entries(out) if path.name not in listed] if is_folder(out) else []
    if foreign:
        raise OutputError(f"{out}: exists and holds {foreign[0]}, which is not the bundle's; choose another name")
    if not overwrite:
        raise OutputError(f"{out}: exists; choose another name or pass --overwrite")


def describe(
    model: PCASeg | FoldedPCASeg,
    options: ExportOptions = DEFAULTS,
    *,
    files: dict[str, FileEntry],
    graphs: dict[str, GraphInfo],
) -> Manifest:
    """The manifest of a model's bundle; with no files and graphs, of the model alone."""
    preset, source = model.preset, model.source
    labels = options.graph == "labels"
    signature = (
        label_signature(preset, options.image_size) if labels else segmenter_signature(preset, options.shortlist)
    )
    return Manifest(
        preset=preset.name,
        aggregation=model.aggregation,
        dense_mode=model.dense_mode,
        weights=Weights(source.kind, source.path, source.sha256, source.seed),
        precision=options.precision,
        opset=options.opset,
        layer_norm=options.layer_norm,
        graph=options.graph,
        strategy=options.strategy,
        image_size=options.image_size,
        shortlist=options.shortlist,
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
        files=files,
    )


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=sha256_of(path), bytes=size_of(path))


def _zip(folder: Path, out: Path) -> None:
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for path in entries(folder):
            member = zipfile.ZipInfo(path.name)  # of no date, so that the same bundle is the same bytes
            member.external_attr = 0o644 << 16
            member.create_system = 3  # Unix
            with open(path, "rb") as source, archive.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
