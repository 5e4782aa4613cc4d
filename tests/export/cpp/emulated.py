"""An arm64 Debian in a folder, whose programs run here through QEMU's user-mode emulation: no root, no chroot."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy
import onnxruntime
import PIL
from build import Builder, run
from debian_packages import Debian
from filelock import FileLock

ROOT = Path(__file__).parents[3]
PYTHON = "3.13"  # Debian 13's

PACKAGES = ["python3", "libstdc++6", "libgomp1", "zlib1g-dev", "libssl-dev", "libpng-dev"]
WHEELS = [
    f"numpy=={numpy.__version__}",
    f"pillow=={PIL.__version__}",
    f"onnxruntime=={onnxruntime.__version__}",
    *("tokenizers", "safetensors", "ftfy", "tqdm"),
]
"""The runtime's dependencies; those that compute in the version that runs here."""

EMULATOR = "qemu-user"
"""Debian's package; of 13, for that of 12 cannot start ONNX Runtime."""

COMPILER = "aarch64-linux-gnu-g++"
INSTALL = {COMPILER: "g++-aarch64-linux-gnu", "cmake": "cmake"}


class Arm64:
    """The folder: a root of Debian's packages, the wheels for it, and the C++ program built for it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.root, self._site = folder, folder / "root", folder / "site"
        self._emulator = folder / "emulator"

    @staticmethod
    def lack() -> str | None:
        """What keeps arm64 programs from running here, and the mend; or None."""
        missing = [name for name in INSTALL if shutil.which(name) is None]
        if missing:
            return f"{', '.join(missing)} missing; apt-get install {' '.join(INSTALL[name] for name in missing)}"
        return Debian.lack()

    def prepare(self) -> None:
        """Fetches root and wheels, a quarter of a gigabyte, where they are not there yet."""
        with FileLock(f"{self._folder / 'lock'}"):
            if not self.root.exists():
                part = self._folder / "part-root"
                shutil.rmtree(part, ignore_errors=True)
                Debian(self._folder / "debian", "arm64").unpack(PACKAGES, part)
                (part / "lib").symlink_to("usr/lib")  # the package that has it is not among these
                part.rename(self.root)
            if not self._emulator.exists():
                Debian(self._folder / "debian", "amd64").unpack([EMULATOR], self._emulator, alone=True)
            if not self._site.exists():
                part = self._folder / "part-site"
                shutil.rmtree(part, ignore_errors=True)
                platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]
                platforms += ["--platform=manylinux2014_aarch64"]
                where = ["--only-binary=:all:", f"--python-version={PYTHON}", "--target", part]
                run(sys.executable, "-m", "pip", "install", "-q", "--no-compile", *platforms, *where, *WHEELS)
                part.rename(self._site)
            self._register()

    def _register(self) -> None:
        """Lays what is known of the installed project beside the wheels: its entry points name the backends."""
        known = distribution("pcaseg")
        folder = self._site / f"pcaseg-{known.version}.dist-info"
        folder.mkdir(exist_ok=True)
        for name in ("METADATA", "entry_points.txt"):
            (folder / name).write_text(known.read_text(name) or "")

    def build(self, builder: Builder) -> Path:
        """The folder of the library and the examples, cross-compiled."""
        (runtime,) = (self._site / "onnxruntime/capi").glob("libonnxruntime.so.1.*")
        return builder.build(
            "arm64",
            "-DCMAKE_SYSTEM_NAME=Linux",
            "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
            f"-DCMAKE_CXX_COMPILER={COMPILER}",
            "-DCMAKE_LIBRARY_ARCHITECTURE=aarch64-linux-gnu",
            f"-DCMAKE_SYSROOT={self.root}",
            "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined",  # the loader finds what the linker cannot here
            f"-DCMAKE_FIND_ROOT_PATH={self.root}",
            "-DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY",
            "-DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY",
            "-DCMAKE_FIND_ROOT_PATH_MODE_PROGRAM=NEVER",
            f"-DONNXRUNTIME_INCLUDE_DIR={builder.headers()}",
            f"-DONNXRUNTIME_LIBRARY={builder.linked(runtime)}",
        )

    def run(self, *command: str | Path, stdin: bytes = b"") -> str:
        """What an arm64 program prints.

        Raises:
            AssertionError: it fails.
        """
        paths = f"PYTHONPATH={ROOT}:{self._site},PYTHONDONTWRITEBYTECODE=1,OMP_NUM_THREADS=1"
        emulator = [self._emulator / "usr/bin/qemu-aarch64", "-cpu", "cortex-a72", "-L", self.root, "-E", paths]
        return run(*emulator, *command, input=stdin)

    def python(self, *words: str | Path) -> str:
        """What arm64's Python prints."""
        return self.run(self.root / f"usr/bin/python{PYTHON}", *words)
