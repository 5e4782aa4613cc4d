"""An environment with the real Triton Inference Server that comes with `nvidia-pytriton`, and servers started in it.

That package holds the server's program and its Python backend, for the CPU. The environment's Python runs the models:
numpy stays below 2 there.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from environments import ROOT, made_environment, run

FOLDER = ROOT / ".venv-triton"
SERVER = "nvidia-pytriton==0.7.0"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"

_START_S = 120


@dataclass(frozen=True)
class Triton:
    """The environment.

    Attributes:
        folder: of the environment.
        site: where its packages lie.
    """

    folder: Path
    site: Path

    @staticmethod
    def lack() -> str:
        """Words on what this machine lacks for it; empty where it has all."""
        if sys.platform != "linux" or os.uname().machine != "x86_64":
            return f"{SERVER} is for Linux on x86-64; run on one"
        if not (3, 10) <= sys.version_info[:2] <= (3, 12):
            return f"{SERVER} is for Python 3.10 to 3.12; run: make test-triton PYTHON=python3.12 VENV=.venv-312"
        if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
            return f"{SERVER} needs a Python with its shared library, such as Debian's with libpython{VERSION}"
        return ""

    @classmethod
    def ready(cls) -> Triton:
        """The environment, made where it is not there or of other packages: half a minute to minutes, 450 MB."""
        found = cls(FOLDER, FOLDER / "lib" / f"python{VERSION}" / "site-packages")
        wanted = [f"onnxruntime=={version('onnxruntime')}", "numpy<2"]  # the same arithmetic as in this environment

        def fill(python: Path) -> None:
            run(python, "-m", "pip", "install", "--quiet", "--no-deps", SERVER)  # its helpers are not used
            run(python, "-m", "pip", "install", "--quiet", "--editable", ROOT, *wanted)
            backend = found._backends / "python"
            shutil.copytree(found._server / "backends" / "python", backend)
            shutil.copy(found._server / "python_backend_stubs" / VERSION / "triton_python_backend_stub", backend)

        made_environment(FOLDER, "\n".join([SERVER, *wanted, VERSION, str(ROOT)]), fill)
        return found

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def with_numpy(self, folder: Path, requirement: str) -> Path:
        """An environment that has all of this one but another numpy."""
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        own = folder / "lib" / f"python{VERSION}" / "site-packages"
        run(self.python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", own, requirement)
        (own / "rest.pth").write_text(f"import site; site.addsitedir({str(self.site)!r})\n")
        return folder

    def command(self, repository: Path, ports: tuple[int, int, int]) -> list[str]:
        """The program and its options, on the loopback alone."""
        options = {"model-repository": repository, "backend-directory": self._backends, "allow-gpu-metrics": "false"}
        for name, port in zip(("http", "grpc", "metrics"), ports, strict=True):
            options |= {f"{name}-address": "127.0.0.1", f"{name}-port": port}
        return [str(self._server / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in options.items())]

    def variables(self) -> dict[str, str]:
        """Its environment variables: where the libraries lie."""
        folders = self.site / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")
        return os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, folders))}

    @property
    def _server(self) -> Path:
        return self.site / "pytriton" / "tritonserver"

    @property
    def _backends(self) -> Path:
        return self.folder / "backends"


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        http, grpc: its addresses.
        process: of it.
    """

    http: str
    grpc: str
    process: subprocess.Popen[bytes]


@contextmanager
def serving(triton: Triton, repository: Path, model: str, log: Path) -> Iterator[Served]:
    """A server whose model is ready, until the end of the block; its messages go to `log`."""
    import tritonclient.http as http

    ports = free_ports()
    with open(log, "wb") as file:
        process = subprocess.Popen(
            triton.command(repository, ports), env=triton.variables(), stdout=file, stderr=subprocess.STDOUT
        )
    served = Served(f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", process)
    try:
        end = time.monotonic() + _START_S
        with http.InferenceServerClient(served.http) as client:
            while not _is_ready(client, model):
                assert process.poll() is None and time.monotonic() < end, log.read_text(errors="replace")[-3000:]
                time.sleep(0.2)
        yield served
    finally:
        process.terminate()
        process.wait(60)


def free_ports() -> tuple[int, int, int]:
    """Three ports that nobody uses."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    first, second, third = (one.getsockname()[1] for one in sockets)
    for one in sockets:
        one.close()
    return first, second, third


def _is_ready(client, model: str) -> bool:
    try:
        return client.is_model_ready(model)
    except OSError:  # nobody listens yet
        return False
