"""The command `pcaseg build`."""

from __future__ import annotations

import argparse
from typing import get_args

from pcaseg.arguments import EXIT_OK, natural, some_path
from pcaseg.export.tensorrt.profiles import ProfileSet, describe_sets
from pcaseg.runtime.engines import EnginePrecision, EngineRuntime, Hardware, Plugins


def add_build(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", type=some_path, help="bundle of `pcaseg export`")
    command.add_argument(
        "--runtime",
        choices=get_args(EngineRuntime),
        default="tensorrt",
        help="what runs the engines: TensorRT (default), or TensorRT-RTX, which builds without a GPU too",
    )
    command.add_argument(
        "--compute-capability",
        type=_capabilities,
        default=(),
        metavar="8.9,12.0",
        help="with --runtime rtx: GPUs that it is to run on (default: 8.0 and newer)",
    )
    command.add_argument(
        "--precision",
        choices=get_args(EnginePrecision),
        help="default: the bundle's; int8 and fp8 quantise a float32 bundle",
    )
    command.add_argument(
        "--profile",
        choices=get_args(ProfileSet),
        default="default",
        help=f"shapes (default: default): {describe_sets()}",
    )
    command.add_argument("--workspace", type=natural, default=4096, metavar="MIB", help="memory for tactics (4096)")
    command.add_argument("--optimization-level", type=natural, default=3, metavar="0..5", help="effort (default: 3)")
    command.add_argument("--hardware", choices=get_args(Hardware), default="this-gpu", help="GPUs that it is to run on")
    command.add_argument("--version-compatible", action="store_true", help="run on newer TensorRT versions too")
    command.add_argument("--strip-weights", action="store_true", help="take the weights from the bundle when opened")
    command.add_argument(
        "--timing-cache", type=some_path, help="file of measured tactics; default: in the cache folder"
    )
    command.add_argument(
        "--plugins",
        choices=get_args(Plugins),
        default="none",
        help="the kernels of pcaseg: compiled into the engine (TensorRT 10.9 and newer), or from a C++ library",
    )
    command.add_argument("--calibration", type=some_path, metavar="FOLDER", help="images, for --precision int8 and fp8")
    command.add_argument("--plugin-library", type=some_path, help="for --plugins library")
    command.add_argument("--device", help="cuda (default) or cuda:N")
    command.add_argument(
        "--no-build", action="store_true", help="only say whether the engines are there, and what differs"
    )
    command.set_defaults(run=run_build)


def run_build(options: argparse.Namespace) -> int:
    from pcaseg.export.tensorrt.build import build_engines
    from pcaseg.export.tensorrt.builder import BuildOptions
    from pcaseg.export.tensorrt.inspection import describe_shares
    from pcaseg.runtime.bundle import Bundle

    wanted = BuildOptions(
        workspace_mib=options.workspace,
        hardware=options.hardware,
        version_compatible=options.version_compatible,
        weight_stripped=options.strip_weights,
        optimization_level=options.optimization_level,
        compute_capabilities=options.compute_capability,
    )
    engines = build_engines(
        Bundle(options.bundle),
        runtime=options.runtime,
        precision=options.precision,
        profile=options.profile,
        options=wanted,
        device=options.device,
        build=not options.no_build,
        timing_cache=options.timing_cache,
        plugins=options.plugins,
        plugin_library=options.plugin_library,
        calibration=options.calibration,
        progress=True,
    )
    for found in engines:
        sidecar = found.engine.sidecar
        how = f"built in {sidecar.build_seconds:.0f} s" if found.built else "there already"
        opened = "" if sidecar.opened_on else "; not yet opened on a GPU"
        shares = describe_shares(sidecar.layers)
        print(f"{found.engine.plan}: {how}, {sidecar.nbytes / 2**20:.1f} MiB, {shares}{opened}")
    return EXIT_OK


def _capabilities(text: str) -> tuple[str, ...]:
    """Compute capabilities with commas between, for argparse; what they may be the library knows."""
    return tuple(part.strip() for part in text.split(","))
