"""Standard output that is closed or full, and commands in threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from pcaseg.cli import main

PROGRAM = (sys.executable, "-m", "pcaseg")


def shell(redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = f'exec "$@" {redirection}'
    return subprocess.run(["sh", "-c", command, "sh", *PROGRAM, *words], capture_output=True, text=True)


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", [("presets",), ("datasets", "list")])
def test_closed_streams(redirection, words):
    done = shell(redirection, *words)
    assert done.returncode == 0 and "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_output_is_said():
    done = shell(">/dev/full", "presets")
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output: cannot be written") and done.stderr.count("\n") == 1
    assert shell("2>/dev/full", "presets").returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [("--version",), ("--help",), ("segment", "--help")])
def test_a_full_output_is_said_of_help_too(words):
    done = shell(">/dev/full", *words)
    assert done.returncode == 2 and done.stderr.startswith("error: standard output: cannot be written")


def test_a_closed_output_keeps_the_code_of_bad_input(tmp_path):
    done = shell(">&-", "doctor", str(tmp_path / "none"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_a_reader_that_has_gone():
    done = subprocess.run(
        ["sh", "-c", '"$@" | true', "sh", *PROGRAM, "presets"], capture_output=True, text=True, check=True
    )
    assert "Traceback" not in done.stderr


def test_commands_run_in_threads(tmp_path, capsys):
    former, codes = signal.getsignal(signal.SIGTERM), []
    calls = (["presets"], ["doctor", str(tmp_path / "none")], ["presets"])
    threads = [threading.Thread(target=lambda words=words: codes.append(main(words))) for words in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [0, 0, 2] and signal.getsignal(signal.SIGTERM) is former
    assert "eva-b-384" in capsys.readouterr().out


def test_sigterm_is_the_program_s_own_again():
    former = signal.getsignal(signal.SIGTERM)
    assert main(["presets"]) == 0
    assert signal.getsignal(signal.SIGTERM) is former


def test_an_outdated_package_is_named(monkeypatch, capsys):
    def outdated(options):
        raise ModuleNotFoundError("no", name="numpy.of_tomorrow")

    monkeypatch.setattr("pcaseg.commands.models.run_presets", outdated)
    assert main(["presets"]) == 2
    assert "the installed numpy lacks numpy.of_tomorrow" in capsys.readouterr().err
