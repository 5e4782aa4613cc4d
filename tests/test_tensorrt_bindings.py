"""What can be held against NVIDIA's real bindings without a GPU: the listings, and code that makes their objects."""

from __future__ import annotations

import json

import pytest
from tensorrt_bindings import WHEELS
from tensorrt_listing import listing

pytestmark = pytest.mark.parametrize("version", WHEELS)


def test_the_listings_are_the_bindings(real_tensorrt, version):
    """So that the fake module and the test of the code's uses stand on what really exists."""
    done = real_tensorrt.run(version, "import json, tensorrt_listing as t; print(json.dumps(t.dump()))")
    assert json.loads(done.stdout.splitlines()[-1]) == listing(version)


OBJECTS = """
import tensorrt as trt
from pathlib import Path
from pcaseg.runtime.tensorrt_api import capture_log
from pcaseg.export.tensorrt.builder import _monitor, _network_flags
from tqdm import tqdm

log = capture_log(trt, Path(sys.argv[1])) if (sys := __import__("sys")) else None
for severity in trt.ILogger.Severity.__members__.values():
    log.log(severity, severity.name.lower())
log.close()
assert isinstance(log, trt.ILogger)
assert log.problems == ["internal_error", "error", "warning"] and log.errors == ["internal_error", "error"]
with tqdm(disable=True) as bar:
    monitor = _monitor(trt, bar)
    assert isinstance(monitor, trt.IProgressMonitor)
    monitor.phase_start("a phase", None, 3)
    assert monitor.step_complete("a phase", 0)
    monitor.phase_finish("a phase")
    assert bar.total == 3
kinds = trt.NetworkDefinitionCreationFlag.__members__
print(*[name for name, value in kinds.items() if _network_flags(trt) >> int(value) & 1])
"""


def test_objects_are_made(real_tensorrt, version, tmp_path):
    """The logger and the progress monitor are real subclasses; the network's flags are real members."""
    done = real_tensorrt.run(version, OBJECTS, str(tmp_path / "log"))
    wanted = {
        "10.3": {"EXPLICIT_BATCH", "STRONGLY_TYPED"},
        "10.13": {"EXPLICIT_BATCH", "STRONGLY_TYPED", "PREFER_AOT_PYTHON_PLUGINS"},
        "11.4": {"STRONGLY_TYPED", "PREFER_AOT_PYTHON_PLUGINS"},
    }
    assert set(done.stdout.split()) == wanted[version]
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 5 and lines[1].endswith("ERROR: error")


BUILD = """
import tensorrt as trt
from pcaseg.errors import EngineError
from pcaseg.export.tensorrt.builder import BuildOptions, build_plan
from pcaseg.runtime.tensorrt_api import capture_log, deserialize

log = capture_log(trt)
for attempt in (
    lambda: build_plan(trt, b"", (), precision="fp16", options=BuildOptions(), timing_cache=b"", log=log,
                       source="x.onnx", progress=False),
    lambda: deserialize(trt, b"plan", log, source="x.plan", host_code=True),
):
    try:
        attempt()
    except EngineError as error:
        print(error)
"""


def test_without_a_gpu_is_one_clear_error(real_tensorrt, version):
    said = real_tensorrt.run(version, BUILD).stdout.splitlines()
    assert len(said) == 2
    assert all(f"TensorRT {WHEELS[version]}" in line and "finds no usable GPU" in line for line in said)
