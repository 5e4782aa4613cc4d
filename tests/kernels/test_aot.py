"""Ahead-of-time compilation of everything, without a GPU: for two architectures, and among the slow tests for all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pcaseg.errors import reported
from pcaseg.kernels.__main__ import main
from pcaseg.kernels.aot import ARCHITECTURES, KERNELS
from pcaseg.kernels.registry import DTYPES
from pcaseg.kernels.triton import interpreted

ALWAYS = ("sm_87", "sm_90")
OTHERS = tuple(arch for arch in ARCHITECTURES if arch not in ALWAYS)
UNSPILLED = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90")
SHARED_BYTES = 99 * 1024
"""Shared memory that a block may have on sm_86, 87 and 89."""
pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=[ALWAYS, pytest.param(OTHERS, marks=pytest.mark.slow)], ids="-".join)
def archs(request) -> tuple[str, ...]:
    return request.param


@pytest.fixture(scope="module")
def folder(archs, tmp_path_factory) -> Path:
    """Filled by the command in a process of its own: in this one Triton may be an interpreter."""
    out = tmp_path_factory.mktemp("kernels")
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "pcaseg.kernels", "compile", "--arch", ",".join(archs), "--out", str(out)]
    run = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return out


@pytest.fixture(scope="module")
def entries(folder) -> list[dict]:
    return json.loads((folder / "manifest.json").read_text())["kernels"]


def test_every_kernel_for_every_architecture_and_dtype(archs, entries):
    assert {entry["arch"] for entry in entries} == set(archs)
    for arch in archs:
        names = [entry["name"] for entry in entries if entry["arch"] == arch]
        assert len(names) == len(set(names))
        for kernel in KERNELS:
            for dtype in DTYPES:
                assert any(name.startswith(kernel) and name.endswith(dtype) for name in names), (kernel, dtype)


def test_files_are_what_the_manifest_says(folder, entries):
    for entry in entries:
        ptx = (folder / entry["ptx"]).read_text()
        assert f".entry {entry['entry']}(" in ptx
        assert re.search(rf"\.target {entry['arch']}a?\b", ptx)
        parameters = re.findall(r"\.param \.(\w+)", ptx.split(".entry")[1].split(")")[0])
        kinds = ["u64" if kind.startswith("*") else "u32" for _, kind in entry["arguments"]]
        assert [p.replace("b", "u") for p in parameters] == kinds + ["u64"] * entry["scratch_arguments"]
        if entry["cubin"] is None:
            assert entry["note"].startswith("PTX alone") and entry["registers"] is None
        else:
            assert (folder / entry["cubin"]).read_bytes()[:4] == b"\x7fELF"
            assert entry["note"] == "" and 0 < entry["registers"] <= 255
    assert {path.name for path in folder.iterdir()} == {"manifest.json"} | {
        entry[kind] for entry in entries for kind in ("ptx", "cubin") if entry[kind]
    }


def test_pointers_come_first_and_outputs_last(entries):
    """The order that TensorRT passes: inputs, int32 scalars, outputs."""
    for entry in entries:
        kinds = "".join("p" if kind.startswith("*") else "s" for _, kind in entry["arguments"])
        assert re.fullmatch("p+s+p+", kinds), entry["arguments"]
        assert all(kind == "i32" for _, kind in entry["arguments"] if not kind.startswith("*"))


def test_nothing_spills_where_it_must_not(entries):
    spills = {(e["name"], e["arch"]): e["spill_bytes"] for e in entries if e["arch"] in UNSPILLED}
    assert not {key: spilled for key, spilled in spills.items() if spilled}


def test_shared_memory_fits_every_architecture(entries):
    assert not [(e["name"], e["arch"], e["shared_bytes"]) for e in entries if e["shared_bytes"] > SHARED_BYTES]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "sm_75"], "arch='sm_75': choose from sm_80, "),
        (["--kernels", "softmax"], "kernel='softmax': choose from cost_volume, "),
        (["--dtypes", "fp64"], "dtype='fp64': choose from fp32, "),
    ],
)
def test_refused(tmp_path, capsys, arguments, message):
    assert reported(lambda: main(["compile", "--out", str(tmp_path), *arguments])) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_compiled_by_an_interpreter(tmp_path, capsys):
    if not interpreted():
        pytest.skip("Triton compiles here")
    assert reported(lambda: main(["compile", "--out", str(tmp_path / "out")])) == 2
    assert "TRITON_INTERPRET is set, so nothing can be compiled; unset it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
