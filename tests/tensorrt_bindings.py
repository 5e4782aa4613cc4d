"""NVIDIA's real Python bindings of TensorRT 10 and 11, over stand-ins for the libraries behind them.

The bindings alone are a small wheel: every class, enum and signature is theirs. The libraries, gigabytes that need a
GPU, are replaced by ones whose functions return nothing. So what is decided in Python runs as it would, and builders,
runtimes and parsers cannot be made, as on a machine without a driver. Programs run in a process of their own, for one
process can import one version.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import made_once

WHEELS = {"10.3": "10.3.0", "10.13": "10.13.3.9", "11.4": "11.4.0.106"}
"""Of each listed version (`tensorrt_listing.VERSIONS`) the release; 8.5 has no wheel of bindings alone."""

NEWEST_PYTHON = {"10.3": (3, 12), "10.13": (3, 13), "11.4": (3, 14)}

SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
"""What the bindings take from the libraries when they are imported."""

TESTS = Path(__file__).parent


class Bindings:
    """The bindings of all versions, each fetched when it is first used and kept in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, version: str, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a Python program in which `import tensorrt` gives that version's bindings.

        Args:
            version: one of `WHEELS`.
            program: its text; this project and the helpers of the tests can be imported, and Triton compiles.
            arguments: its `sys.argv[1:]`.
            check: whether the test fails if the program does.
        """
        place = self._ready(version)
        paths = [str(place), str(TESTS), os.environ.get("PYTHONPATH", "")]
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(place / "libs"), os.environ.get("LD_LIBRARY_PATH")])),
        }
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        if check and done.returncode:
            pytest.fail(f"TensorRT {version}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def _ready(self, version: str) -> Path:
        """The folder with the package `tensorrt` and the stand-ins of its libraries."""
        if sys.platform != "linux" or platform.machine() != "x86_64":
            pytest.skip("bindings and stand-ins are for Linux on x86_64")
        if sys.version_info[:2] > NEWEST_PYTHON[version]:
            pytest.skip(f"TensorRT {version} has no bindings for Python {platform.python_version()}")
        if shutil.which("gcc") is None:
            pytest.skip("the stand-ins of TensorRT's libraries need gcc")
        place = self.folder / f"{WHEELS[version]}-python{sys.version_info[0]}.{sys.version_info[1]}"
        return made_once(place, lambda part: _fetch(WHEELS[version], part))


def _fetch(release: str, place: Path) -> None:
    _install(release, place)
    _stand_in(place / "libs", release.partition(".")[0])
    (place / "tensorrt").symlink_to("tensorrt_bindings")


def _install(release: str, place: Path) -> None:
    package = f"tensorrt-cu12-bindings=={release}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), package]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode and "connection" in done.stderr.lower():
        pytest.skip(f"{package} cannot be fetched: the package index is out of reach")
    if done.returncode:
        pytest.fail(f"{' '.join(command)}: {done.stderr}")


def _stand_in(libs: Path, major: str) -> None:
    """Three libraries under the names that the bindings ask for; the first has all functions."""
    libs.mkdir()
    source = libs / "stand_in.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS))
    for name in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"):
        library = f"{name}.so.{major}"
        sources = [str(source)] if name == "libnvinfer" else ["-x", "c", os.devnull]
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(libs / library), *sources]
        subprocess.run(command, check=True, capture_output=True)
