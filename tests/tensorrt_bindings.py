"""The real Python bindings of TensorRT without its libraries: from PyPI, over stubs that answer nothing.

Importing, registering plugins and checking schemas works so; anything that needs a library's answer does not.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PINNED = ("10.13.3.9", "11.4.0.106")


def bindings(version: str, folder: Path) -> Path:
    """A folder for PYTHONPATH and LD_LIBRARY_PATH in which `import tensorrt` gives these bindings.

    Skips the test where there is no compiler or the package cannot be had.
    """
    if shutil.which("gcc") is None or shutil.which("nm") is None:
        pytest.skip("no gcc and nm, with which the stub libraries are made")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), f"tensorrt-cu12-bindings=={version}"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"tensorrt-cu12-bindings {version} cannot be had: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "tensorrt_bindings").rename(folder / "tensorrt")
    (module,) = (folder / "tensorrt").glob("tensorrt*.so")
    _stub(module, folder)
    return folder


def _stub(module: Path, folder: Path) -> None:
    """Libraries with every symbol that the bindings want; all functions answer 0."""
    wanted = subprocess.run(["readelf", "-d", module], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"NEEDED.*\[(libnv\S+)\]", wanted)
    listed = subprocess.run(["nm", "-D", "--undefined-only", module], capture_output=True, text=True, check=True).stdout
    symbols = {line.split()[-1].partition("@")[0] for line in listed.splitlines() if " U " in line}
    own = sorted(
        name for name in symbols if "NvOnnx" in name or "nfer" in name or name.startswith(("getPlugin", "getBuilder"))
    )
    source = folder / "stub.c"
    source.write_text("#include <stddef.h>\n" + "\n".join(f"size_t {name}() {{ return 0; }}" for name in own) + "\n")
    for name in names:
        command = ["gcc", "-shared", "-fPIC", "-w", "-o", str(folder / name), f"-Wl,-soname,{name}", str(source)]
        subprocess.run(command, check=True)
