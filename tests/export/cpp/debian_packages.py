"""Packages of Debian 13 unpacked into folders, for any kind of machine, by apt itself, nothing installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SUITE = "trixie"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Debian:
    """Debian's packages for one kind of machine; lists and archives are kept in a folder of ours."""

    def __init__(self, folder: Path, machine: str) -> None:
        """`machine` as Debian names it: `amd64`, `arm64`."""
        self._folder = folder / machine
        for name in ("lists/partial", "cache/archives/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").touch()
        sources = self._folder / "sources.list"
        sources.write_text(f"deb [signed-by={KEYS}] http://deb.debian.org/debian {SUITE} main\n")
        settings = {
            "APT::Architecture": machine,
            "APT::Architectures": machine,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Dir::Cache": self._folder / "cache",
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": self._folder,
            "Dir::State::status": self._folder / "status",
        }
        self._apt = ["apt-get", "-q", "-y", *(f"-o{name}={value}" for name, value in settings.items())]

    @staticmethod
    def lack() -> str | None:
        """What keeps packages from being fetched here, or None."""
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            return "there is no apt-get"
        return None if KEYS.exists() else "there is no debian-archive-keyring (apt-get install debian-archive-keyring)"

    def unpack(self, packages: list[str], root: Path, *, alone: bool = False) -> None:
        """Unpacks packages, and what they depend on unless `alone`, into a folder; their scripts do not run.

        Raises:
            CalledProcessError: apt cannot fetch them; its output says why.
        """
        self._run("update")
        if alone:
            self._run("download", *packages, folder=self._folder / "cache/archives")
        else:
            self._run("install", "--download-only", *packages)
        root.mkdir(parents=True, exist_ok=True)
        for archive in sorted((self._folder / "cache/archives").glob("*.deb")):
            self._unpack(archive, root)
            archive.unlink()

    def _unpack(self, archive: Path, root: Path) -> None:
        """As `dpkg -x`, but folders that are links in `root`, such as /lib, stay links."""
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as packed:
            subprocess.run(["tar", "-xC", root, "--keep-directory-symlink"], stdin=packed.stdout, check=True)

    def _run(self, *words: str, folder: Path | None = None) -> None:
        subprocess.run([*self._apt, *words], cwd=folder, check=True, capture_output=True, text=True, timeout=500)
