"""The launch rules: the launchers' own numbers, the same in C++, and in TensorRT's expressions."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pcaseg.errors import PcasegError
from pcaseg.export.plugins.library import SOURCES, attributes_of, build_library, descriptions, launch_function, main
from pcaseg.export.plugins.table import PLUGINS, Integers, fixed_for
from pcaseg.kernels.aot import arguments_of
from pcaseg.kernels.expert_mix import groups_of
from pcaseg.kernels.ptx import entry_parameters, without_scratch

SIZES = attributes_of("eva-b-384")
CASES = list(itertools.product(PLUGINS, ("fp32", "fp16"), (1, 5), (1, 2, 20, 150, 256)))


def shapes_of(name: str, B: int, T: int, *, images: int = 1) -> list[tuple[int, ...]]:
    """Shapes of a plugin's inputs; `images` have texts' shares of their own."""
    s = {key: value for sizes in SIZES.values() for key, value in sizes.items()}
    C, W, D, E, M = s["channels"], s["width"], s["dim"], s["experts"], s["mapper_width"]
    if name == "PcasegCostVolume":
        return [(B, W, W, D), (T, 1, D), (C, 1, 7, 7), (C,)]
    if name == "PcasegClassAttention":
        d = C // s["heads"]
        return [(B, T, W * W, C), (images, T, 2 * C), (C, C), (C, C), (C, C), (C,), (s["heads"], d, d), (s["heads"], d)]
    maps = (B, T, W, W, C)
    vectors = (1, 21, E, C)
    return [maps, maps, (E * C, 2 * C), (E * C, 2 * C), vectors, (M, 2 * C), (M,), (E, M), (E,), (C, 2 * C), (C,)]


def launched(name: str, dtype: str, B: int, T: int, *, images: int = 1):
    plugin = PLUGINS[name]
    variant = plugin.variant(dtype, SIZES[name])
    fixed = fixed_for(plugin, variant, SIZES[name])
    return plugin.launch(shapes_of(name, B, T, images=images), fixed, Integers()), fixed, variant


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_is_its_kernel(name):
    plugin = PLUGINS[name]
    for dtype in ("fp32", "fp16"):
        variant = plugin.variant(dtype, SIZES[name])
        arguments = arguments_of(variant.kernel)
        pointers = [argument for argument in arguments if argument.endswith("_ptr")]
        assert [f"{n}_ptr" for n in plugin.inputs] + ["out_ptr"] == pointers
        kinds = [kind[0] for kind in variant.signature.values()]
        assert kinds == ["*"] * len(plugin.inputs) + ["i"] * (len(arguments) - len(pointers)) + ["*"]
        assert len(plugin.types) == len(pointers)
        launch = launched(name, dtype, 1, 7)[0]
        assert len(launch.scalars) == kinds.count("i")
    with pytest.raises(PcasegError, match="dtype"):
        plugin.variant("bf16", SIZES[name])


@pytest.mark.parametrize(("name", "dtype", "B", "T"), CASES)
def test_grids_cover_everything_once(name, dtype, B, T):
    launch, fixed, _ = launched(name, dtype, B, T)
    if name == "PcasegCostVolume":
        assert launch.grid == (-(-576 // fixed["BLOCK_M"]), -(-T // fixed["CLASSES"]), B)
        assert launch.scalars == (T, 24, 24, 0)
    elif name == "PcasegClassAttention":
        assert launch.grid == (128 // fixed["BLOCK_C"], 576, B)
        assert launch.scalars == (T, 576, 0)
        of_its_own = launched(name, dtype, B, T, images=B)[0]
        assert (of_its_own.grid, of_its_own.scalars) == (launch.grid, (T, 576, T if B > 1 else 0))
    else:
        groups, lanes = groups_of(B * T, 24, fixed["BLOCK_M"])
        maps, height, width, own_lanes, rows = launch.scalars
        assert (maps, height, width, own_lanes) == (B * T, 24, 24, lanes)
        assert launch.grid[0] == groups * 128 * 4 // fixed["COLUMNS"]
        assert (launch.grid[1] - 1) * rows < 24 <= launch.grid[1] * rows


def test_outputs_have_the_kernels_shapes():
    assert PLUGINS["PcasegCostVolume"].output(shapes_of("PcasegCostVolume", 2, 7)) == (2, 7, 24, 24, 128)
    assert PLUGINS["PcasegClassAttention"].output(shapes_of("PcasegClassAttention", 2, 7)) == (2, 7, 576, 128)
    assert PLUGINS["PcasegExpertMix"].output(shapes_of("PcasegExpertMix", 2, 7)) == (2, 7, 24, 24, 128)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_cpp_launches_the_same(tmp_path):
    """The generated functions, compiled as they stand in the library."""
    keys = [(name, dtype) for name in PLUGINS for dtype in ("fp32", "fp16")]
    functions = [launch_function(PLUGINS[name], dtype, SIZES[name]) for name, dtype in keys]
    names = [PLUGINS[name].variant(dtype, SIZES[name]).name for name, dtype in keys]
    table = ", ".join(f"launch_{name}" for name in names)
    text = ["#include <algorithm>", "#include <cstdint>", *functions]
    text += [
        'extern "C" int32_t run(int32_t which, int32_t const (*dims)[8], int32_t* grid, int32_t* scalars)',
        f"{{ static decltype(&launch_{names[0]}) all[] = {{{table}}}; return all[which](dims, grid, scalars); }}",
    ]
    (tmp_path / "rules.cpp").write_text("\n".join(text))
    command = ["g++", "-std=c++17", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(tmp_path / "rules.so")]
    subprocess.run([*command, str(tmp_path / "rules.cpp")], check=True)
    run = ctypes.CDLL(str(tmp_path / "rules.so")).run
    for name, dtype, B, T, images in [(*case, images) for case in CASES for images in (1, case[2])]:
        dims = (ctypes.c_int32 * 8 * 16)()
        for i, shape in enumerate(shapes_of(name, B, T, images=images)):
            dims[i][: len(shape)] = shape
        grid, scalars = (ctypes.c_int32 * 3)(), (ctypes.c_int32 * 8)()
        count = run(keys.index((name, dtype)), dims, grid, scalars)
        expected = launched(name, dtype, B, T, images=images)[0]
        assert (tuple(grid), tuple(scalars[:count])) == (expected.grid, expected.scalars)


def test_descriptions_name_every_axis():
    text = "\n".join(descriptions())
    assert (
        '{"PcasegCostVolume", 4, 4, {"width", "dim", "channels", "prompts"}, {true, false, true, true, true}, 5, '
        in text
    )
    assert "{{0, 0}, {1, 0}, {0, 1}, {0, 2}, {2, 0}}" in text


PTX = """.visible .entry _k(
\t.param .u64 .ptr .global .align 1 _k_param_0,
\t.param .u32 _k_param_1,
\t.param .u64 .ptr .global .align 1 _k_param_2,
\t.param .u64 .ptr .global .align 1 _k_param_3,
\t.param .u64 .ptr .global .align 1 _k_param_4
)
.reqntid 128
{
\tld.param.b64 \t%rd1, [_k_param_0];
\tld.param.b64 \t%rd2, [_k_param_2];
\tret;
}
"""


def test_scratch_parameters_go():
    short = without_scratch(PTX, 3)
    assert [kind for kind, _ in entry_parameters(short)] == ["u64", "u32", "u64"]
    assert short.count("ld.param") == 2 and "reqntid" in short
    assert without_scratch(short, 3) == short or entry_parameters(without_scratch(short, 3)) == entry_parameters(short)
    with pytest.raises(PcasegError, match="reads _k_param_2"):
        without_scratch(
            PTX.replace("_k_param_3,", "_k_param_3").replace("\t.param .u64 .ptr .global .align 1 _k_param_4\n", ""), 2
        )
    with pytest.raises(PcasegError, match="5 parameters for 6"):
        without_scratch(PTX, 6)
    with pytest.raises(PcasegError, match="0 entries"):
        entry_parameters("// nothing")


COMPILE = """
import subprocess, sys, pathlib, triton
from pcaseg.export.plugins.library import attributes_of
from pcaseg.export.plugins.table import PLUGINS
from pcaseg.kernels.aot import plugin_entry
from pcaseg.kernels.ptx import entry_parameters
ptxas = triton.knobs.nvidia.ptxas.path
folder, arch, sizes = pathlib.Path(sys.argv[1]), sys.argv[2], attributes_of("eva-b-384")
for plugin in PLUGINS.values():
    for dtype in ("fp32", "fp16"):
        variant = plugin.variant(dtype, sizes[plugin.name])
        entry = plugin_entry(variant, arch)
        kinds = [kind for kind, _ in entry_parameters(entry.ptx)]
        wanted = ["u64" if kind[0] == "*" else "u32" for kind in variant.signature.values()]
        assert [kind.replace("b", "u") for kind in kinds] == wanted, (plugin.name, kinds)
        assert dtype == "fp32" or entry.shared_bytes <= 48 * 1024, (plugin.name, arch, entry.shared_bytes)
        (folder / "k.ptx").write_text(entry.ptx)
        target = entry.ptx.split(".target ")[1].split()[0].rstrip(",")
        command = [ptxas, "-arch", target, str(folder / "k.ptx"), "-o", str(folder / "k.cubin")]
        subprocess.run(command, check=True)
        print(plugin.name, dtype, arch)
"""


def compiled(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process in which Triton compiles."""
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | environment
    return subprocess.run([sys.executable, "-c", script, *arguments], env=clean, capture_output=True, text=True)


@pytest.mark.long
@pytest.mark.parametrize("arch", ["sm_87", pytest.param("sm_90", marks=pytest.mark.slow)])
def test_entries_take_what_tensorrt_passes(arch, tmp_path):
    """Inputs, scalars and output, and nothing else, in PTX that the assembler accepts."""
    run = compiled(COMPILE, str(tmp_path), arch)
    assert run.returncode == 0, run.stderr[-3000:]
    assert len(run.stdout.splitlines()) == 6


def test_the_library_builds_over_tensorrts_headers(tmp_path):
    """`PCASEG_TENSORRT_HEADERS` names a folder with one folder of headers for each version."""
    named = os.environ.get("PCASEG_TENSORRT_HEADERS")
    if named is None or shutil.which("cmake") is None:
        pytest.skip("PCASEG_TENSORRT_HEADERS names no folder of TensorRT's headers, or there is no cmake")
    write = "import sys, pathlib; from pcaseg.export.plugins.library import write_kernels\n"
    write += "write_kernels(['sm_87'], ['eva-b-384'], ['fp16'], pathlib.Path(sys.argv[1]))"
    assert compiled(write, str(tmp_path / "kernels.h")).returncode == 0
    versions = sorted(path for path in Path(named).iterdir() if (path / "NvInfer.h").exists())
    assert versions
    for include in versions:
        build_library(include, tmp_path / "kernels.h", tmp_path / f"{include.name}.so")
        found = subprocess.run(["nm", "-DC", tmp_path / f"{include.name}.so"], capture_output=True, text=True).stdout
        assert "getPluginRegistry" in found and "cuLaunchKernel" not in found


def test_the_plugin_classes_launch_what_the_table_says(tmp_path):
    """The C++ classes over each version's headers and a driver that prints: entry, programs, arguments in order."""
    named = os.environ.get("PCASEG_TENSORRT_HEADERS")
    if named is None:
        pytest.skip("PCASEG_TENSORRT_HEADERS names no folder of TensorRT's headers")
    write = "import sys, pathlib; from pcaseg.export.plugins.library import write_kernels\n"
    write += "write_kernels(['sm_87'], ['eva-b-384'], ['fp16'], pathlib.Path(sys.argv[1]))"
    assert compiled(write, str(tmp_path / "kernels.h")).returncode == 0
    here, lines = Path(__file__).parent, []
    for index, (name, plugin) in enumerate(PLUGINS.items()):
        shapes = shapes_of(name, 2, 20)
        rows = ", ".join("{" + ", ".join(map(str, shape)) + "}" for shape in shapes)
        values = ", ".join(str(SIZES[name][key]) for key in plugin.attributes)
        lines += [f"int32_t const shapes{index}[][8] = {{{rows}}};"]
        lines += [f"int32_t const ranks{index}[] = {{{', '.join(str(len(shape)) for shape in shapes)}}};"]
        lines += [f"int32_t const values{index}[] = {{{values}}};"]
        lines += [f"drive<{index}>(shapes{index}, ranks{index}, values{index});"]
    (tmp_path / "shapes.h").write_text("\n".join(lines))
    driver = ["gcc", "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1"), str(here / "stand_in_cuda.c")]
    subprocess.run(driver, check=True)
    for include in sorted(path for path in Path(named).iterdir() if (path / "NvInfer.h").exists()):
        command = [
            "g++",
            "-std=c++17",
            "-w",
            f"-I{include}",
            f"-I{SOURCES / 'stand_in'}",
            "-o",
            str(tmp_path / "drive"),
        ]
        command += [
            f'-DPCASEG_SOURCE="{SOURCES / "pcaseg_plugins.cpp"}"',
            f'-DPCASEG_KERNELS="{tmp_path / "kernels.h"}"',
        ]
        command += [f'-DPCASEG_SHAPES="{tmp_path / "shapes.h"}"', str(here / "drive_plugin.cpp"), "-ldl"]
        subprocess.run(command, check=True)
        environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
        said = subprocess.run([tmp_path / "drive"], env=environment, capture_output=True, text=True, check=True).stdout
        check_launches(said.splitlines())


def check_launches(lines: list[str]) -> None:
    words = [line.split() for line in lines]
    starts = [i for i, line in enumerate(words) if line[0] in PLUGINS]
    assert [words[i][0] for i in starts] == list(PLUGINS)
    for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
        name, part = words[start][0], words[start:end]
        assert part[0][1] == "1"  # what lacks an attribute was refused
        assert part[-1] == ["code", "0"]
        expected, _, _ = launched(name, "fp16", 2, 20)
        (launch,) = [line for line in part if line[0] == "launch"]
        assert tuple(map(int, launch[1:4])) == expected.grid
        arguments = [int(line[1], 16) for line in part if line[0] == "argument"]
        count = len(PLUGINS[name].inputs)
        assert arguments[:count] == [0x1000 * (i + 1) for i in range(count)]
        assert [value & 0xFFFFFFFF for value in arguments[count:-1]] == list(expected.scalars)
        assert arguments[-1] == 0xF000


def test_the_library_says_what_it_lacks(tmp_path, capsys):
    with pytest.raises(PcasegError, match=r"holds no NvInfer\.h"):
        build_library(tmp_path, tmp_path / "kernels.h", tmp_path / "lib.so")
    arguments = ["--tensorrt-include", str(tmp_path), "--out", str(tmp_path / "x.so")]
    assert main([*arguments, "--arch", "sm_30"]) == 2
    assert "sm_30" in capsys.readouterr().err
    (tmp_path / "mine.so").write_text("mine")
    for taken in (tmp_path / "mine.so", tmp_path):
        assert main(["--tensorrt-include", str(tmp_path), "--out", str(taken)]) == 2
        assert "is not a plugin library of pcaseg; choose another name" in capsys.readouterr().err
    assert (tmp_path / "mine.so").read_text() == "mine"
    script = "import sys; sys.modules['torch'] = None; from pcaseg.export.plugins.library import main; "
    script += f"sys.exit(main(['--tensorrt-include', {str(tmp_path)!r}, '--out', {str(tmp_path / 'x.so')!r}]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr.count("\n") == 1
        and 'torch is not installed; in a clone of pcaseg run: pip install ".[triton]"' in done.stderr
    )
    assert (SOURCES / "CMakeLists.txt").exists() and (SOURCES / "pcaseg_plugins.cpp").exists()
