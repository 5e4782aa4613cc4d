"""`--ray` on a real Ray: what a single process makes, though workers and drivers are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from ray_environment import RayEnvironment, end_all, wait_until, workers_of

from pcaseg.cli import main

pytestmark = pytest.mark.ray
COUNT = 24
RAY = ("--ray", "local", "--workers", "2")


@pytest.fixture(scope="module")
def ray() -> RayEnvironment:
    if lack := RayEnvironment.lack():
        pytest.skip(lack)
    return RayEnvironment.ready()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    assert main(["datasets", "scenes", "--images", str(COUNT), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def work(scenes, trained_tiny, tmp_path) -> Path:
    """A folder with `scenes` and `tiny.pcaseg`."""
    shutil.copytree(scenes, tmp_path / "scenes")
    (tmp_path / "tiny.pcaseg").symlink_to(trained_tiny)
    return tmp_path


def segment(*images: str, out: str) -> tuple[str, ...]:
    network = ("--bundle", "tiny.pcaseg", "--vocabulary", "scenes/classes.txt", "--threads", "1")
    return ("segment", *images, *network, "--out", out)


def made(folder: Path) -> dict[str, object]:
    """What stands in a folder of results, without the times that each took."""
    assert not list(folder.glob(".*"))
    found: dict[str, object] = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    for path in folder.glob("*.json"):
        found[path.name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "timings_ms"}
    return found


def test_all_is_as_of_one_process(ray, work):
    images = sorted((work / "scenes" / "images").iterdir())
    images[2].write_bytes(images[2].read_bytes()[:90])
    images[7].write_bytes(b"")
    inside = [*images[4:9], work / "gone.png"]
    (work / "list.txt").write_text("".join(f"{path.as_uri()}\n" for path in inside) + "scenes/images/0000.png\n")
    for inputs in (("scenes/images",), ("list.txt",)):
        kept = []
        for name, more in (("alone", ()), ("shared", RAY)):
            out = f"{name}/out-{inputs[0].replace('/', '-')}"
            code, said, errors = ray.pcaseg(*segment(*inputs, out=out), *more, folder=work)
            again = ray.pcaseg(*segment(*inputs, out=out), *more, folder=work) if more else None
            kept.append((code, said.replace(f"{name}/", ""), errors, made(work / out)))
        assert kept[0] == kept[1]
        assert kept[0][0] == 2 and len(kept[0][2]) >= 2
        done = len(list((work / out).glob("*.json")))
        assert again[0] == 2 and f"0 segmented, {done} done before" in again[1]


def test_a_worker_that_is_killed_loses_nothing(ray, work):
    process = ray.start("-m", "pcaseg", *segment("scenes/images", out="out"), *RAY, folder=work)
    wait_until(lambda: len(list((work / "out").glob("*.json"))) > 3, process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    out, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    assert f"{COUNT} segmented, 0 done before and skipped, 0 failed" in out
    assert len(list((work / "out").glob("*.json"))) == COUNT


def test_a_driver_that_is_killed_loses_nothing(ray, work):
    process = ray.start("-m", "pcaseg", *segment("scenes/images", out="out"), *RAY, folder=work)
    wait_until(lambda: len(list((work / "out").glob("*.json"))) > 3, process)
    end_all(process)
    before = {path: path.stat().st_mtime_ns for path in (work / "out").glob("*.json")}
    code, said, _ = ray.pcaseg(*segment("scenes/images", out="out"), *RAY, folder=work)
    assert code == 0
    assert f"{COUNT - len(before)} segmented, {len(before)} done before and skipped, 0 failed" in said
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert ray.pcaseg(*segment("scenes/images", out="single"), folder=work)[0] == 0
    partial = {path.name for path in (work / "out").iterdir() if path.name.startswith(".")}
    assert all(name.endswith(".partial") for name in partial)  # of the files that were being written
    for name in partial:
        shutil.rmtree(work / "out" / name)
    assert made(work / "out") == made(work / "single")


def test_an_evaluation_is_as_of_one_process(ray, work):
    words = ("evaluate", "--data", "scenes", "--bundle", "tiny.pcaseg", "--strategy", "single")
    broken = sorted((work / "scenes" / "images").iterdir())[1]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    found = [ray.pcaseg(*words, *more, "--out", "out", folder=work) for more in ((), RAY)]
    assert found[0][:1] == found[1][:1] == (2,) and found[0][2] == found[1][2]
    broken.write_bytes(whole)
    shutil.rmtree(work / "out")
    kept = []
    for more in (("--threads", "1"), RAY):
        code, said, _ = ray.pcaseg(*words, *more, "--out", "out", folder=work)
        kept.append((code, said, *((work / "out" / name).read_bytes() for name in ("results.json", "results.md"))))
        shutil.rmtree(work / "out")
    assert kept[0][0] == 0 and kept[0] == kept[1]


def test_an_item_that_kills_its_workers_is_told(ray, tmp_path):
    (tmp_path / "deadly.py").write_text(
        "import json, os\n"
        "from pcaseg.runtime.ray_pool import RayPool\n"
        "def work(item):\n"
        "    if item['n'] == 3:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return {'n': item['n']}\n"
        "def opener():\n"
        "    return work\n"
        "if __name__ == '__main__':\n"
        "    from deadly import opener\n"
        "    found = RayPool('local', 2).run(opener, [{'n': n} for n in range(20)])\n"
        "    print(json.dumps(sorted(found)))\n"
    )
    code, out, _ = ray.run("deadly.py", folder=tmp_path)
    assert code == 0
    assert json.loads(out.splitlines()[-1]) == [[n, {"died": True} if n == 3 else {"n": n}] for n in range(20)]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there_is_one_sentence(ray, work, address):
    code, _, errors = ray.pcaseg(*segment("scenes/images", out="out"), "--ray", address, folder=work)
    assert code == 2
    assert len(errors) == 1 and f"--ray {address}: cannot be reached" in errors[0]
