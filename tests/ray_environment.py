"""An environment with Ray, and commands in it on a network of their own: Ray binds beyond the loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from environments import ROOT, made_environment, run

FOLDER = ROOT / ".venv-ray"
ALONE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--map-root-user")
"""A command without network, whose processes all end with it."""


@dataclass(frozen=True)
class RayEnvironment:
    """The environment, by its python."""

    python: Path

    @staticmethod
    def lack() -> str:
        """Words on what this machine lacks for it; empty where it has all."""
        if shutil.which("unshare") is None or shutil.which("ip") is None:
            return "Ray is tried on a network of its own; install util-linux and iproute2"
        if subprocess.run([*ALONE, "true"], capture_output=True).returncode:
            return "Ray is tried on a network of its own; allow user namespaces"
        return ""

    @classmethod
    def ready(cls) -> RayEnvironment:
        """The environment, made where it is not there or of other packages: a minute or more, 1 GB."""
        same = f"onnxruntime=={version('onnxruntime')}"
        install = ("-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[ray]", same)
        wanted = "\n".join((sys.version, *install))
        return cls(made_environment(FOLDER, wanted, lambda python: run(python, *install)))

    def start(self, *words: object, folder: Path) -> subprocess.Popen[str]:
        """Starts a Python program on a network of its own, in a folder."""
        script = 'ip link set lo up; exec "$@"'
        command = [*ALONE, "sh", "-c", script, "sh", self.python, *words]
        variables = os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(folder)}
        return subprocess.Popen(
            [str(word) for word in command],
            env=variables,
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *words: object, folder: Path) -> tuple[int, str, list[str]]:
        """Exit code, output, and the lines of errors."""
        process = self.start(*words, folder=folder)
        out, err = process.communicate(timeout=500)
        return process.returncode, out, [line for line in err.splitlines() if line.startswith("error: ")]

    def pcaseg(self, *words: object, folder: Path) -> tuple[int, str, list[str]]:
        """As `run`, of a command of `pcaseg`."""
        return self.run("-m", "pcaseg", *words, folder=folder)


def wait_until(condition, process: subprocess.Popen[str], seconds: float = 300) -> None:
    """Waits until something holds, of a process that runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Processes of Ray's actors below a process."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue  # it has ended
        if words.startswith(b"ray::MapWorker"):
            found.append(int(folder.name))

    def below(pid: int) -> bool:
        while pid in parents and pid != process.pid:
            pid = parents[pid]
        return pid == process.pid

    return [pid for pid in found if below(pid)]


def end_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL for the driver and all that it started."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
