"""The scripts for an offline GPU machine, as far as a machine without one can show: plans, resuming, targets."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support_rows import POINT, make_row

from pcaseg.benchmarks.gpu import aot_launch, collect, engines, kernels, onnxruntime, prepare, steps
from pcaseg.benchmarks.gpu.steps import MeasuringStep, run_steps
from pcaseg.benchmarks.rows import append_rows, read_rows
from pcaseg.cli import build_parser
from pcaseg.errors import EngineError, OutputError
from pcaseg.export.plugins.library import attributes_of
from pcaseg.export.plugins.table import PLUGINS, Integers

SCRIPTS = {"prepare": prepare, "kernels": kernels, "engines": engines, "onnxruntime": onnxruntime}


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_steps_resume(tmp_path, capsys):
    flag = tmp_path / "flag"
    good = MeasuringStep("good", python(f"open({str(flag)!r}, 'a').write('x'); print('hello')"))
    bad = MeasuringStep("bad", python("print('broken'); raise SystemExit(3)"))
    assert run_steps([bad, good], tmp_path, seconds=60) == 1  # the one behind a failure runs all the same
    out = capsys.readouterr().out
    assert "bad: failed with code 3" in out and "good: done" in out
    assert (
        "hello" in (tmp_path / "logs" / "good.log").read_text()
        and "broken" in (tmp_path / "logs" / "bad.log").read_text()
    )
    mended = replace(bad, command=python("print('mended')"))
    assert run_steps([mended, good], tmp_path, seconds=60) == 0
    assert flag.read_text() == "x"  # not run again
    assert "broken" in (tmp_path / "logs" / "bad.log").read_text()  # logs are kept
    listed = steps.listing([mended, replace(good, command=python("0")), bad], tmp_path).splitlines()
    assert [line.split()[0] for line in listed] == ["done", "to", "to"]


@pytest.mark.timing
def test_steps_stop_in_time(tmp_path, capsys):
    slow = MeasuringStep("slow", python("import time; time.sleep(60)"), limit_s=1)
    late = MeasuringStep("late", python("0"))
    assert run_steps([slow, late], tmp_path, seconds=0.5) == 1
    out = capsys.readouterr().out
    assert "slow: stopped after 0 s" in out and "late: left for the next run" in out
    assert run_steps([slow], tmp_path, seconds=60) == 1 and "stopped after 1 s" in capsys.readouterr().out


def test_steps_that_cannot_run(tmp_path, capsys):
    assert run_steps([MeasuringStep("none", ("/nowhere/python",))], tmp_path, seconds=60) == 1
    assert "none: cannot be started" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another folder"):
        run_steps([], tmp_path / "file", seconds=60)
    (tmp_path / "done" / "none.json").write_text("{")
    assert not steps.is_done(MeasuringStep("none", ("a",)), tmp_path)


@pytest.mark.parametrize("name", SCRIPTS)
def test_dry_runs_list_and_leave_nothing(name, tmp_path, capsys):
    out = tmp_path / "out"
    assert SCRIPTS[name].main(["--out", str(out), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 4 and all(line.startswith("to do") for line in lines) and not out.exists()


def planned(tmp_path) -> list[MeasuringStep]:
    models = ["eva-b-384", "/models/own.safetensors"]
    library = tmp_path / "libpcaseg_plugins.so"
    return [
        *prepare.plan(models, tmp_path, "cuda"),
        *kernels.plan(models, tmp_path),
        *engines.plan(models, tmp_path, ("/opt/run.sh", "python"), "library", library),
        *kernels.bench_steps("onnxruntime", models, tmp_path, ("eager", "onnxruntime-cuda")),
    ]


def test_plans_are_commands_that_exist(tmp_path):
    found = planned(tmp_path)
    assert len({step.name for step in found}) == len(found)
    for step in found:
        index = step.command.index("-m")
        name, words = step.command[index + 1], step.command[index + 2 :]
        assert importlib.util.find_spec(name) is not None
        if name == "pcaseg":
            build_parser().parse_args(words)
    bundles = {word for step in found for word in step.command if word.endswith(".pcaseg")}
    exported = {step.command[step.command.index("--out") + 1] for step in found if "export" in step.command}
    assert bundles == exported and len(exported) == 12


def test_engines_run_in_a_python_of_their_own(tmp_path, capsys):
    found = engines.plan(["eva-b-384"], tmp_path, ("/opt/run.sh", "python"), "inside", None)
    assert all(step.command[:3] == ("/opt/run.sh", "python", "-m") for step in found)
    builds = [step.command for step in found if step.name.startswith("build-")]
    assert len(builds) == 5 and sum("--plugins" in command for command in builds) == 1
    with pytest.raises(SystemExit):
        engines.main(["--out", str(tmp_path), "--plugins", "library"])
    assert "belong together" in capsys.readouterr().err


def test_what_measures_engines_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import pcaseg.benchmarks.gpu.points, pcaseg.benchmarks.gpu.engines"
    subprocess.run([sys.executable, "-c", code], check=True)


MADE_UP = {"test data": "made up"}


def made_up(backend="tensorrt", *, T=150, strategy="sliding", ms=10.0, gpu="NVIDIA H200", agreement=1.0, **changes):
    """A row of nothing that was ever measured."""
    point = replace(POINT, classes=T, strategy=strategy, height=640, width=640)
    row = make_row("folded", point, noise=0.0)

    def timed(ms: float):
        return replace(row.engine, latency=replace(row.engine.latency, p50_ms=ms))

    accuracy = replace(row.accuracy, label_agreement=agreement)
    own = {"backend": backend, "precision": "float16", "environment": MADE_UP | {"gpu": gpu}}
    own |= {"engine": timed(ms), "end_to_end": timed(2 * ms), "accuracy": accuracy}
    return replace(row, **(own | changes))


def verdicts(*rows) -> list[str]:
    return [outcome.verdict for outcome in collect.outcomes(rows)]


UNKNOWN = ["not measured"] * 6


def test_nothing_is_claimed_without_a_row():
    assert verdicts() == UNKNOWN
    assert verdicts(made_up(preset="tiny"), made_up("eager-autocast", preset="tiny")) == UNKNOWN
    assert verdicts(made_up("eager-autocast", ms=1000.0)) == UNKNOWN
    assert verdicts(made_up(T=20, strategy="sliding"), made_up(status="failed"))[:4] == UNKNOWN[:4]


def test_targets_on_the_gpu_that_they_are_of():
    rows = [made_up(), made_up("eager-autocast", ms=120.1), made_up("eager-compiled", ms=29.9)]
    assert verdicts(*rows) == ["met", "missed", "met", "not measured", "met", "not measured"]
    assert verdicts(*rows, made_up("eager-autocast", ms=119.0))[0] == "missed"  # the fastest baseline counts
    assert verdicts(made_up(ms=12.6))[2] == "missed"
    assert verdicts(made_up(T=20, strategy="single", ms=3.9))[3] == "met"
    assert verdicts(made_up(), made_up(agreement=0.9989, status="failed"))[4] == "missed"
    assert verdicts(made_up(precision="float32", agreement=0.9998))[5] == "missed"


def test_another_gpu_is_not_the_one():
    h100 = "NVIDIA H100 80GB HBM3"
    found = collect.outcomes([made_up(gpu=h100), made_up("eager-autocast", ms=500.0, gpu=h100)])
    assert found[0].verdict == "not measured" and found[0].measured == "50.00 x on another GPU"
    mixed = [made_up(), made_up("eager-autocast", ms=500.0, gpu=h100)]
    assert verdicts(*mixed)[0] == "not measured"  # times of two machines make no ratio


def test_collecting_adds_each_row_once(tmp_path, capsys):
    out, results = tmp_path / "out", tmp_path / "results"
    words = ["--out", str(out), "--results", str(results)]
    assert collect.main(words) == 2 and "holds no rows" in capsys.readouterr().err
    append_rows(out / "rows" / "engines-a.jsonl", [made_up()])
    append_rows(out / "rows" / "bench-b.jsonl", [made_up("eager-autocast", ms=119.0)])
    (out / "rows" / "aot_launch.json").write_text("{}")
    assert collect.main(words) == 0
    table = capsys.readouterr().out
    assert "12 x eager-autocast | missed | 11.90 x | NVIDIA H200 |" in table and "weights: seeded" in table
    assert (results / "gpu_targets.md").read_text() == table and (results / "gpu_aot_launch.json").exists()
    assert collect.main(words) == 0 and len(read_rows([results / "gpu_eva-b-384.jsonl"])) == 2


@pytest.mark.parametrize("name", PLUGINS)
def test_cases_of_plugins_fit_them(name):
    plugin, sizes = PLUGINS[name], attributes_of("eva-b-384")[name]
    case = aot_launch.make_case(plugin, "fp32", sizes, 1, 2, "cpu")
    shapes = [tuple(tensor.shape) for tensor in case.inputs]
    assert tuple(map(len, shapes)) == plugin.ranks and all(tensor.is_contiguous() for tensor in case.inputs)
    expected = case.reference()
    assert tuple(expected.shape) == plugin.output(shapes) and expected.dtype == torch.float64
    launch = plugin.launch_for([tuple(tensor.shape) for tensor in case.inputs], "fp32", sizes, Integers())
    assert min(launch.grid) >= 1 and all(type(number) is int for number in (*launch.grid, *launch.scalars))
    half = aot_launch.make_case(plugin, "fp16", sizes, 1, 1, "cpu").inputs
    kinds = ["float16" if kind == "T" else "float32" for kind in plugin.types[:-1]]
    assert [str(tensor.dtype).removeprefix("torch.") for tensor in half] == kinds


def test_launches_pass_inputs_scalars_output(monkeypatch):
    calls = []

    def answer(name, *arguments):
        calls.append((name, *arguments))
        return 0, 11

    driver = SimpleNamespace(CUresult=SimpleNamespace(CUDA_SUCCESS=0))
    for name in ("cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel"):
        setattr(driver, name, lambda *arguments, name=name: answer(name, *arguments))
    driver.cuModuleUnload = lambda module: (SimpleNamespace(name="CUDA_ERROR_INVALID_HANDLE"),)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)
    monkeypatch.setattr("torch.cuda.current_stream", lambda: SimpleNamespace(cuda_stream=7))
    kernel = aot_launch.PtxKernel("ptx", "entry", 128, 4096)
    given, out = [torch.zeros(2), torch.zeros(3)], torch.zeros(4)
    kernel(aot_launch.Launch((5, 6, 1), (20, 24)), given, out)
    assert calls[0] == ("cuModuleLoadData", b"ptx\0") and calls[1] == ("cuModuleGetFunction", 11, b"entry")
    _, function, *grid_and_block, shared, stream, (values, kinds), extra = calls[2]
    assert (function, grid_and_block, shared, stream, extra) == (11, [5, 6, 1, 128, 1, 1], 4096, 7, 0)
    assert values == (given[0].data_ptr(), given[1].data_ptr(), 20, 24, out.data_ptr())
    assert [kind.__name__ for kind in kinds] == ["c_void_p"] * 2 + ["c_int"] * 2 + ["c_void_p"]
    with pytest.raises(EngineError, match="cuModuleUnload: the CUDA driver answers CUDA_ERROR_INVALID_HANDLE"):
        kernel.close()


def test_errors_are_relative_to_the_largest_value():
    reference = torch.tensor([1.0, -4.0], dtype=torch.float64)
    assert aot_launch.relative_error(torch.tensor([1.0, -3.0]), reference) == 0.25
    assert not aot_launch.relative_error(torch.tensor([float("nan"), -4.0]), reference) <= 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_launching_without_a_gpu_is_refused(tmp_path, capsys):
    assert aot_launch.main(["--rows", str(tmp_path / "rows.json")]) == 2
    assert "cannot use a GPU here" in capsys.readouterr().err and not (tmp_path / "rows.json").exists()
