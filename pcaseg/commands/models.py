"""`pcaseg presets`, `import` and `export`: from checkpoints to model files to bundles."""

from __future__ import annotations

import argparse
from typing import get_args

from pcaseg.arguments import EXIT_OK, image_size, natural, some_path
from pcaseg.commands.options import add_shortlist, say_weights
from pcaseg.configs import (
    OPSET,
    OPSETS,
    Aggregation,
    DenseMode,
    GraphKind,
    LayerNormForm,
    Precision,
    Strategy,
    get_preset,
    presets,
)


def add_import(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", help=".pth, .pt, .safetensors or index of shards, of PCA-Seg, CAT-Seg, or CLIP")
    command.add_argument("--preset", required=True, help=f"one of {', '.join(presets())}")
    command.add_argument("--aggregation", choices=get_args(Aggregation), help="left out: as the names say")
    command.add_argument("--dense-mode", choices=get_args(DenseMode), default="csa")
    command.add_argument("--seed", type=natural, default=0, help="for the aggregator of a checkpoint of CLIP alone")
    command.add_argument("--out", required=True, type=some_path, help="model file to write, .safetensors")
    command.set_defaults(run=run_import)


def add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model",
        help="model file of `pcaseg import`, or a preset's name for its shipped or seeded weights",
    )
    command.add_argument("--out", required=True, type=some_path, help="bundle to write, NAME.pcaseg or NAME.pcaseg.zip")
    command.add_argument(
        "--graph", choices=get_args(GraphKind), default="logits", help="labels: whole images, all steps in the graph"
    )
    command.add_argument(
        "--strategy", choices=get_args(Strategy), help="of a graph of labels: single (default), or sliding: 5 passes"
    )
    command.add_argument(
        "--image-size", type=image_size, metavar="HEIGHTxWIDTH", help="fixes a graph of labels to it, such as 720x1280"
    )
    command.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="float32",
        help="of weights and tensors; float16 keeps its delicate sums in float32",
    )
    command.add_argument("--opset", type=natural, default=OPSET, help=f"{OPSETS[0]} to {OPSETS[-1]} (default: {OPSET})")
    command.add_argument(
        "--layer-norm",
        choices=get_args(LayerNormForm),
        default="operator",
        help="decomposed: for parsers without LayerNormalization, such as TensorRT 8.5 with --opset 17",
    )
    add_shortlist(command, of_bundle="then the graph has maps of these alone")
    command.add_argument("--plugins", action="store_true", help="write a graph with the kernels as plugin nodes too")
    command.add_argument("--overwrite", action="store_true", help="replace a bundle that stands there")
    command.set_defaults(run=run_export)


def run_presets(options: argparse.Namespace) -> int:
    print(f"{'preset':14} {'image tower':12} {'input px':>8} {'grid':>7} {'embedding':>9}")
    for name in presets():
        p = get_preset(name)
        tower = f"{p.family} {p.vision_blocks} x {p.vision_width}"
        print(f"{name:14} {tower:12} {p.image_px:8} {f'{p.grid} x {p.grid}':>7} {p.embed_dim:9}")
    return EXIT_OK


def run_import(options: argparse.Namespace) -> int:
    from pcaseg.model.checkpoint import import_checkpoint

    model = import_checkpoint(
        options.checkpoint,
        options.out,
        preset=options.preset,
        aggregation=options.aggregation,
        dense_mode=options.dense_mode,
        seed=options.seed,
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{options.out}: {options.preset}, {model.aggregation}, {count / 1e6:.1f} million parameters")
    say_weights(model.source.kind)
    return EXIT_OK


def run_export(options: argparse.Namespace) -> int:
    from pcaseg.export.bundle import check_destination, write_bundle
    from pcaseg.export.options import ExportOptions
    from pcaseg.model.checkpoint import open_model

    wanted = ExportOptions(
        graph=options.graph,
        strategy=options.strategy,
        image_size=options.image_size,
        precision=options.precision,
        opset=options.opset,
        layer_norm=options.layer_norm,
        shortlist=options.shortlist,
        plugins="with" if options.plugins else "without",
    )
    check_destination(options.out, overwrite=options.overwrite)
    model = open_model(options.model)
    manifest = write_bundle(model, options.out, options=wanted, overwrite=options.overwrite, progress=True)
    size = sum(entry.bytes for entry in manifest.files.values())
    graph = f"{manifest.graph} ({manifest.strategy})" if manifest.strategy else manifest.graph
    graph += f", shortlist {manifest.shortlist}" if manifest.shortlist else ""
    print(
        f"{options.out}: {manifest.preset}, {manifest.aggregation}, {graph}, {manifest.precision}, "
        f"{size / 2**20:.0f} MiB"
    )
    say_weights(manifest.weights.kind)
    return EXIT_OK
