"""Builds the C++ library and its examples for the tests; a build is kept, and brought up to date by CMake."""

from __future__ import annotations

import os
import shutil
import subprocess
import zlib
from pathlib import Path

import onnxruntime
from debian_packages import Debian
from filelock import FileLock

SOURCES = Path(__file__).parents[3] / "export" / "cpp"

INSTALL = "apt-get install cmake g++ pkg-config zlib1g-dev libssl-dev libpng-dev"
HEADERS = "libonnxruntime-dev"  # Debian's package
NAMED_HEADERS = "PCASEG_ONNXRUNTIME_HEADERS"
_USUAL = Path("/usr/include/onnxruntime")


class Builder:
    """Builds in `folder`, each variant in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def lack() -> str | None:
        """What keeps the library from being built here, and the mend; or None."""
        tools = [name for name in ("cmake", "g++", "pkg-config") if shutil.which(name) is None]
        libraries = [name for name in ("zlib", "libcrypto", "libpng") if not tools and not _is_there(name)]
        if tools or libraries:
            return f"{', '.join(tools + libraries)} missing; {INSTALL}"
        if os.environ.get(NAMED_HEADERS) or _USUAL.exists() or Debian.lack() is None:
            return None
        return f"no headers of ONNX Runtime; install {HEADERS} or name their folder in {NAMED_HEADERS}"

    def onnxruntime(self) -> list[str]:
        """CMake's settings for the library within the Python package, with headers from elsewhere."""
        (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.1.*")
        return [f"-DONNXRUNTIME_INCLUDE_DIR={self.headers()}", f"-DONNXRUNTIME_LIBRARY={self.linked(library)}"]

    def headers(self) -> Path:
        """The folder of `onnxruntime_c_api.h`."""
        if named := os.environ.get(NAMED_HEADERS):
            return Path(named)
        fetched = self._folder / "headers"
        with FileLock(f"{fetched}.lock"):
            if not _USUAL.exists() and not (fetched / "usr").exists():
                Debian(self._folder / "debian", "amd64").unpack([HEADERS], fetched, alone=True)
        return _USUAL if _USUAL.exists() else fetched / "usr/include/onnxruntime"

    def linked(self, library: Path) -> Path:
        """A link to a library under the name that programs look for, which a wheel lacks."""
        folder = self._folder / f"onnxruntime-{zlib.crc32(bytes(library)):08x}"  # of each machine its own
        folder.mkdir(exist_ok=True)
        for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(library)
        return folder / "libonnxruntime.so"

    def build(self, variant: str, *settings: str) -> Path:
        """The folder of a build with these settings of CMake.

        Raises:
            AssertionError: it does not compile without a warning; the output is the message.
        """
        folder = self._folder / variant
        with FileLock(f"{folder}.lock"):
            command = ["cmake", "-S", SOURCES, "-B", folder, "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON", *settings]
            run(*command)
            run("cmake", "--build", folder, "--parallel", "2")
        return folder


def run(*command: str | Path, **options) -> str:
    """What a command prints on both streams.

    Raises:
        AssertionError: it fails.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{text[-6000:]}"
    return text


def _is_there(library: str) -> bool:
    return subprocess.run(["pkg-config", "--exists", library], check=False).returncode == 0
