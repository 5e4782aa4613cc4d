"""The C++ plugin library, for TensorRT 8.5, 8.6 and 10.3: its kernels and launch rules are generated from the table.

    python -m pcaseg.export.plugins.library --tensorrt-include DIR --arch sm_87 --out libpcaseg_plugins.so

needs PyTorch, Triton, CMake and a C++17 compiler; neither a GPU nor the CUDA toolkit.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcaseg.arguments import Parser
from pcaseg.configs import get_preset, presets
from pcaseg.errors import OutputError, PcasegError, install_hint, print_error
from pcaseg.files import atomic_path, refuse_foreign
from pcaseg.paths import exists, is_folder, real_path, size_of

if TYPE_CHECKING:
    from pcaseg.export.plugins.table import Plugin

SOURCES = Path(__file__).with_name("cpp")
EXPERTS = 4
NAME_INSIDE = b"PcasegCostVolume"
"""A plugin's name, which every such library holds."""


def attributes_of(preset: str) -> dict[str, dict[str, int]]:
    """Attributes of the nodes of a preset's graph, by plugin."""
    from pcaseg.export.plugins.table import PLUGINS

    p = get_preset(preset)
    sizes = {
        "width": p.grid,
        "dim": p.embed_dim,
        "channels": p.hidden,
        "prompts": p.prompts,
        "heads": p.heads,
        "experts": EXPERTS,
        "mapper_width": p.hidden // 4,
    }
    return {plugin.name: {name: sizes[name] for name in plugin.attributes} for plugin in PLUGINS.values()}


def write_kernels(archs: Sequence[str], names: Sequence[str], dtypes: Sequence[str], out: Path) -> None:
    """Compiles the kernels of presets and writes the header that the library includes: PTX, launch rules, shapes.

    Raises:
        PcasegError: an unknown architecture, preset or type.
    """
    from pcaseg.export.plugins.qdp import entry_for
    from pcaseg.export.plugins.table import PLUGINS
    from pcaseg.kernels.aot import ARCHITECTURES

    wrong = [arch for arch in archs if arch not in ARCHITECTURES]
    if wrong:
        raise PcasegError(f"arch={wrong[0]!r}: choose from {', '.join(ARCHITECTURES)}")
    functions: dict[str, str] = {}
    images: list[str] = []
    rows: list[str] = []
    for arch in archs:
        for attributes in {str(sizes): sizes for sizes in map(attributes_of, names)}.values():
            for plugin in PLUGINS.values():
                for dtype in dtypes:
                    sizes = attributes[plugin.name]
                    entry = entry_for(plugin, dtype, sizes, arch)
                    variant = plugin.variant(dtype, sizes)
                    functions[variant.name] = launch_function(plugin, dtype, sizes)
                    image = f"image_{len(images)}"
                    images.append(f"static unsigned char const {image}[] = {{{_bytes(entry.ptx)}}};")
                    values = ", ".join(str(sizes[name]) for name in plugin.attributes)
                    half = "true" if dtype == "fp16" else "false"
                    rows.append(
                        f'    {{"{plugin.name}", {{{values}}}, {half}, {int(arch[3:])}, {image}, "{entry.name}", '
                        f"{entry.threads}, {entry.shared_bytes}, launch_{variant.name}}},"
                    )
    text = [*descriptions(), *functions.values(), *images, "static Kernel const kernels[] = {", *rows, "};"]
    with atomic_path(out) as temporary:
        temporary.write_text("\n".join(text) + "\n", encoding="utf-8")


def descriptions() -> list[str]:
    """The plugins' names, attributes, types and output shapes as C++ tables."""
    from pcaseg.export.plugins.table import PLUGINS

    lines = []
    for plugin in PLUGINS.values():
        shapes = [[(i, axis) for axis in range(rank)] for i, rank in enumerate(plugin.ranks)]
        axes = ", ".join(f"{{{i}, {axis}}}" for i, axis in plugin.output(shapes))
        names = ", ".join(f'"{name}"' for name in plugin.attributes)
        varies = ", ".join("true" if kind == "T" else "false" for kind in plugin.types)
        lines.append(
            f'    {{"{plugin.name}", {len(plugin.inputs)}, {len(plugin.attributes)}, {{{names}}}, {{{varies}}}, '
            f"{len(plugin.output(shapes))}, {{{axes}}}}},"
        )
    return ["static Description const descriptions[] = {", *lines, "};"]


def launch_function(plugin: Plugin, dtype: str, attributes: Mapping[str, int]) -> str:
    """A launch rule as a C++ function from the inputs' lengths to programs and scalars."""
    from pcaseg.export.plugins.table import Text, TextOperations

    name = plugin.variant(dtype, attributes).name
    shapes = [[Text(f"dims[{i}][{axis}]") for axis in range(rank)] for i, rank in enumerate(plugin.ranks)]
    launch = plugin.launch_for(shapes, dtype, attributes, TextOperations())
    grid = [f"    grid[{i}] = {length};" for i, length in enumerate(launch.grid)]
    scalars = [f"    scalars[{i}] = {value};" for i, value in enumerate(launch.scalars)]
    head = f"static int32_t launch_{name}(int32_t const (*dims)[8], int32_t* grid, int32_t* scalars)"
    return "\n".join([head, "{", *grid, *scalars, f"    return {len(launch.scalars)};", "}"])


def build_library(include: Path, kernels: Path, out: Path) -> None:
    """Compiles the library with CMake.

    Args:
        include: folder of `NvInfer.h`.
        kernels: what `write_kernels` wrote.
        out: the `.so`.

    Raises:
        PcasegError: no headers, no CMake, or the compiler fails; the message ends with what it says.
        OutputError: `out` cannot be written.
    """
    if not exists(include / "NvInfer.h"):
        raise PcasegError(f"{include}: holds no NvInfer.h; name the include folder of TensorRT")
    if shutil.which("cmake") is None:
        raise PcasegError("cmake is not installed; install CMake and a C++17 compiler")
    with tempfile.TemporaryDirectory() as folder:
        configure = ["cmake", "-S", str(SOURCES), "-B", folder, "-DCMAKE_BUILD_TYPE=Release"]
        configure += [f"-DTENSORRT_INCLUDE={real_path(include)}", f"-DPCASEG_KERNELS={real_path(kernels)}"]
        for command in (configure, ["cmake", "--build", folder]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines()[-12:]
                raise PcasegError(
                    "the plugin library does not build; see whether --tensorrt-include holds TensorRT's own headers "
                    f"and the compiler knows C++17; it says: {' / '.join(said)}"
                )
        try:
            with atomic_path(out) as temporary:
                shutil.copyfile(Path(folder) / "libpcaseg_plugins.so", temporary)
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another place") from error


def check_out(out: Path) -> None:
    """Refuses to replace what is no plugin library of pcaseg.

    Raises:
        OutputError: names it.
    """
    refuse_foreign(
        out, lambda path: not is_folder(path) and NAME_INSIDE in path.read_bytes(), "a plugin library of pcaseg"
    )


def _bytes(text: str) -> str:
    """PTX as numbers with its closing zero: compilers limit the length of string literals."""
    return ",".join(map(str, text.encode() + b"\0"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 done, 2 input that cannot be used."""
    parser = Parser(prog="python -m pcaseg.export.plugins.library", description="C++ plugin library.")
    parser.add_argument("--tensorrt-include", type=Path, required=True, help="folder of NvInfer.h")
    parser.add_argument("--arch", default="sm_87", help="comma-separated (default: sm_87, Jetson Orin)")
    parser.add_argument("--presets", default=",".join(presets()), help="comma-separated (default: all)")
    parser.add_argument("--dtypes", default="fp32,fp16", help="comma-separated (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the .so to write")
    options = parser.parse_args(arguments)
    try:
        check_out(options.out)
        with tempfile.TemporaryDirectory() as folder:
            kernels = Path(folder) / "kernels.h"
            write_kernels(options.arch.split(","), options.presets.split(","), options.dtypes.split(","), kernels)
            build_library(options.tensorrt_include, kernels, options.out)
    except PcasegError as error:
        print_error(error)
        return 2
    except ModuleNotFoundError as error:
        print_error(f"{error.name} is not installed; {install_hint('triton')}")
        return 2
    print(f"{options.out}: {size_of(options.out) / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
