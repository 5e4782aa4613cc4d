"""`pcaseg evaluate` on a small model: eager and bundle side by side, processes, shards, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pcaseg.benchmarks.evaluate_table import evaluation_table
from pcaseg.cli import main
from pcaseg.data import specs
from pcaseg.data.folders import open_labelled, open_prepared
from pcaseg.data.specs import data_set
from pcaseg.errors import PcasegError
from pcaseg.evaluation import published
from pcaseg.evaluation.confusion import Confusion
from pcaseg.evaluation.counts import ImageCounts, add_counts, read_counts, shard_path
from pcaseg.evaluation.evaluate import EvaluatedNetwork, EvaluationPlan, evaluate_network
from pcaseg.evaluation.results import collect_results, markdown
from pcaseg.model.checkpoint import save_model
from pcaseg.runtime.segmenter import Segmenter

COUNT = 4


@pytest.fixture(scope="module")
def bundle(copy_bundle, tmp_path_factory):
    return copy_bundle(tmp_path_factory.mktemp("evaluate") / "small.pcaseg")


@pytest.fixture
def labelled(tmp_path):
    folder = tmp_path / "set"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.txt").write_text("cat\ngrass\nsky\n")
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / "images" / f"{index}.png")
        truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), (20, 24))
        Image.fromarray(truth).save(folder / "labels" / f"{index}.png")
    return folder


def run(*arguments) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_eager_and_bundle_side_by_side(small, small_preset, bundle, labelled, tmp_path, capsys):
    save_model(small, tmp_path / "small.safetensors")
    out = tmp_path / "out"
    model = tmp_path / "small.safetensors"
    assert run("--data", labelled, "--model", model, "--bundle", bundle, "--strategy", "single", "--out", out) == 0
    found = json.loads((out / "results.json").read_text())
    eager, other = found["subjects"]
    assert (eager["subject"], other["subject"]) == ("eager", "onnxruntime") and found["images"] == COUNT
    assert eager["miou"] == pytest.approx(other["miou"], abs=0.1)
    segmenter, confusion, folder = Segmenter(str(bundle), strategy="single"), Confusion(3), open_labelled(labelled)
    segmenter.set_vocabulary(folder.names)
    for index in range(COUNT):
        image, truth = folder.item(index)
        confusion.add(segmenter(image).labels, truth)
    expected = confusion.scores()
    for name in ("miou", "fwiou", "mean_accuracy", "pixel_accuracy"):
        assert other[name] == pytest.approx(getattr(expected, name))
    assert [row["name"] for row in other["classes"]] == ["cat", "grass", "sky"] and other["parts"] is None
    printed = capsys.readouterr().out
    assert "difference of mIoU" in printed and "weights never trained, so these numbers are no results" in printed
    assert "onnxruntime, float32, single (weights never trained)" in (out / "results.md").read_text()


def test_processes_count_what_one_counts(bundle, labelled, tmp_path):
    network = EvaluatedNetwork("onnxruntime", str(bundle), "onnxruntime")
    plan = EvaluationPlan(open_labelled(labelled), tmp_path / "one", "single", threads=1)
    alone = evaluate_network(network, plan)
    apart = evaluate_network(network, replace(plan, out=tmp_path / "two", processes=2))
    assert alone == apart and shard_path(tmp_path / "two", "onnxruntime", (2, 2)).exists()
    assert read_counts(tmp_path / "two", apart) == read_counts(tmp_path / "one", alone)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_image_that_cannot_be_used_does_not_stop_the_others(bundle, labelled, tmp_path, capsys, processes):
    right = {name: (labelled / "labels" / f"{name}.png").read_bytes() for name in "013"}
    (labelled / "labels" / "0.png").write_bytes(b"half")
    Image.fromarray(np.full((20, 24), 7, np.uint8)).save(labelled / "labels" / "1.png")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(labelled / "labels" / "3.png")
    common = "--data", labelled, "--bundle", bundle, "--strategy", "single", "--processes", processes, "--threads", 1
    out = tmp_path / "out"
    assert run(*common, "--out", out) == 2
    said = capsys.readouterr()
    assert "1 of 4 images evaluated, 3 failed; results need all of them" in said.out
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3 and not (out / "results.json").exists()
    for name, fragment in {"0": "not an image", "1": "holds label 7", "3": "20 x 20 labels"}.items():
        assert any(f"labels/{name}.png: {fragment}" in line for line in errors)
        (labelled / "labels" / f"{name}.png").write_bytes(right[name])
    assert run(*common, "--out", out) == 0 and json.loads((out / "results.json").read_text())["images"] == 4


def test_failed_images_are_no_other_shards(bundle, labelled, tmp_path, capsys):
    (labelled / "images" / "0.png").write_bytes(b"")
    common = "--data", labelled, "--bundle", bundle, "--strategy", "single", "--out", tmp_path / "out"
    assert run(*common, "--shard", "1/2") == 2
    said = capsys.readouterr()
    assert "1 of 4 images evaluated, 1 failed" in said.out and "0.png: the file is empty" in said.err
    assert run(*common, "--shard", "2/2") == 0 and "1 of 4 images are in other shards" in capsys.readouterr().out
    with pytest.raises(PcasegError, match="the file is empty"):
        evaluate_network(
            EvaluatedNetwork("onnxruntime", str(bundle), "onnxruntime"),
            EvaluationPlan(open_labelled(labelled), tmp_path / "alone", "single"),
        )


def test_shards_meet_in_one_folder(bundle, labelled, tmp_path, capsys):
    common = "--data", labelled, "--bundle", bundle, "--strategy", "single", "--out", tmp_path / "out"
    assert run(*common, "--shard", "2/2") == 0
    assert "2 of 4 images are in other shards" in capsys.readouterr().out
    assert not (tmp_path / "out" / "results.json").exists()
    assert run(*common, "--shard", "1/2") == 0
    results = (tmp_path / "out" / "results.json").read_bytes()
    assert run(*common) == 0  # nothing is left to do
    again = json.loads((tmp_path / "out" / "results.json").read_bytes())
    assert again["subjects"] == json.loads(results)["subjects"]
    assert run(*common, "--images", 2) == 2 and "another evaluation (images 4, not 2)" in capsys.readouterr().err


def test_the_published_protocol_is_the_default(bundle, labelled, tmp_path):
    assert run("--data", labelled, "--bundle", bundle, "--images", 1, "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["subjects"][0]["strategy"] == "sliding" and found["images"] == 1


def perfect(folder, out, evaluated, *, wrong=()):
    """Counts as of a network that is right but for the pixels of the images in `wrong`, all of which it calls 0."""
    with shard_path(out, evaluated.subject, (1, 1)).open("w") as file:
        file.write(json.dumps(evaluated.__dict__) + "\n")
        for index in range(len(folder)):
            truth = folder.labels(index)
            labels = np.zeros_like(truth) if index in wrong else np.maximum(truth, 0)
            confusion = Confusion(len(folder.label_names))
            confusion.add(labels, truth)
            cells = np.flatnonzero(confusion.counts)
            pixels = confusion.counts.reshape(-1)[cells]
            counts = ImageCounts(folder.file_name(index), tuple(cells.tolist()), tuple(pixels.tolist()))
            file.write(json.dumps(counts.__dict__) + "\n")


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Makes a prepared data set of three images, as many as published."""

    def make(name, *labels):
        spec = data_set(name)
        part = replace(spec.split("val"), count=len(labels))
        monkeypatch.setitem(specs.DATA_SETS, name, replace(spec, splits={"val": part}))
        for folder in (part.images, part.labels):
            (tmp_path / folder).mkdir(parents=True)
        kind = np.uint8 if spec.suffix == ".png" else np.uint16
        for index, values in enumerate(labels):
            Image.new("RGB", (len(values), 2)).save(tmp_path / part.images / f"{index}.jpg")
            Image.fromarray(np.array([values] * 2, kind)).save(tmp_path / part.labels / f"{index}{spec.suffix}")
        return open_prepared(name, tmp_path)

    return make


def evaluated_of(folder, bundle, out):
    network = EvaluatedNetwork("onnxruntime", str(bundle), "onnxruntime")
    out.mkdir()
    return replace(
        evaluate_network(network, EvaluationPlan(folder, out, "single", shard=(2, 2), images=1)), images=len(folder)
    )


def test_parts_seen_and_unseen(prepared, bundle, tmp_path):
    """Images 0 and 1 show seen parts, image 2 an unseen one, half of which is called the first seen part."""
    spec = data_set("pascal_part_116")
    unseen = next(index for index, name in enumerate(spec.names) if name not in spec.seen)
    folder = prepared("pascal_part_116", [0, 0], [1, 255], [unseen, unseen], [unseen, unseen])
    evaluated = replace(evaluated_of(folder, bundle, tmp_path / "out"), weights="checkpoint")
    perfect(folder, tmp_path / "out", evaluated, wrong=(3,))
    (found,) = collect_results(folder, tmp_path / "out", [evaluated])["subjects"]
    assert found["parts"] == pytest.approx({"seen": 75, "unseen": 50, "harmonic_mean": 60})
    text = markdown(collect_results(folder, tmp_path / "out", [evaluated]))
    assert "| mIoU unseen | 50.00 |" in text and "| harmonic mean | 60.00 |" in text and "never trained" not in text


def test_published_results_stand_beside_a_whole_evaluation(prepared, bundle, tmp_path):
    folder = prepared("voc_20b", [0, 20], [5, 255])
    evaluated = replace(evaluated_of(folder, bundle, tmp_path / "out"), weights="checkpoint")
    perfect(folder, tmp_path / "out", evaluated)
    found = collect_results(folder, tmp_path / "out", [evaluated])
    assert found["subjects"][0]["miou"] == 100 and len(found["subjects"][0]["classes"]) == 21
    assert [one["title"] for one in found["published"]] == ["CAT-Seg B", "CAT-Seg L"]
    assert "| CAT-Seg B | 77.3 | its repository |" in markdown(found)
    assert "CAT-Seg" not in markdown(found | {"images": 1})  # a part of the images is not compared
    assert "1 images of 2 as published" in markdown(found | {"images": 1})
    seeded = found["subjects"][0] | {"never_trained": "weights never trained"}
    assert "CAT-Seg" not in markdown(found | {"subjects": [seeded]})


def test_published_results_name_data_sets():
    assert all(name in specs.DATA_SETS for one in published.PUBLISHED for name in one.miou)
    assert published.PUBLISHED[-1].miou["voc_20"] == 98.4 and "voc_20b" not in published.PUBLISHED[-1].miou


def test_nothing_labelled_is_no_result(prepared, bundle, tmp_path):
    folder = prepared("voc_20", [255, 255])
    network = EvaluatedNetwork("onnxruntime", str(bundle), "onnxruntime")
    evaluated = evaluate_network(network, EvaluationPlan(folder, tmp_path / "out", "single"))
    assert add_counts(read_counts(tmp_path / "out", evaluated), 20).counts.sum() == 0
    with pytest.raises(PcasegError, match="no pixel is labelled"):
        collect_results(folder, tmp_path / "out", [evaluated])


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--data", "voc_20", "--model", "absent"], "--root"),
        (["--data", "voc_21", "--model", "absent"], "neither a folder nor a data set"),
        (["--data", "SET"], "give one of them"),
        (["--data", "SET", "--bundle", "absent.pcaseg"], "absent.pcaseg"),
        (["--data", "SET", "--bundle", "absent.pcaseg", "--images", "0"], "images 0"),
        (["--data", "SET", "--bundle", "absent.pcaseg", "--processes", "0"], "'0': give 1 to"),
        (["--data", "SET", "--bundle", "absent.pcaseg", "--shard", "3/2"], "1/4"),
    ],
)
def test_what_cannot_be_evaluated(labelled, tmp_path, capsys, arguments, fragment):
    arguments = [str(labelled) if word == "SET" else word for word in arguments]
    try:
        code = run(*arguments, "--out", tmp_path / "out")
    except SystemExit as refused:
        code = refused.code
    assert code == 2 and fragment in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["results.json", "results.md"])
def test_no_foreign_results_are_replaced(bundle, labelled, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine", encoding="utf-8")
    assert run("--data", labelled, "--bundle", bundle, "--out", tmp_path) == 2
    assert "holds a results.json or results.md of something else" in capsys.readouterr().err
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"


def test_a_bundle_is_evaluated_without_torch(bundle, labelled, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pcaseg.cli import main\n"
        f"sys.exit(main(['evaluate', '--data', {str(labelled)!r}, '--bundle', {str(bundle)!r}, '--strategy', 'single', "
        f"'--out', {str(tmp_path / 'out')!r}]))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert (tmp_path / "out" / "results.md").exists()


def test_a_killed_run_goes_on(bundle, labelled, tmp_path):
    out = tmp_path / "out"
    arguments = ["evaluate", "--data", labelled, "--bundle", bundle, "--threads", "1", "--out", out]
    command = [sys.executable, "-m", "pcaseg", *map(str, arguments)]
    held = shard_path(out, "onnxruntime", (1, 1))
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (held.exists() and held.read_bytes().count(b"\n") > 1):
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    before = held.read_bytes()
    assert 2 <= before.count(b"\n") <= COUNT + 1
    assert run(*arguments[1:]) == 0
    after = held.read_bytes()
    assert after.startswith(before[: before.rfind(b"\n") + 1]) and after.count(b"\n") == COUNT + 1
    whole = tmp_path / "whole"
    assert run(*arguments[1:-1], whole) == 0
    assert shard_path(whole, "onnxruntime", (1, 1)).read_bytes() == after


def stored(path, data, miou, **changes):
    subject = {"preset": "eva-b-384", "subject": "eager", "precision": "float32", "strategy": "sliding"}
    subject |= {"weights_sha256": "ab" * 32, "never_trained": None, "miou": miou, "parts": None} | changes
    found = {"data": data, "images": 5, "published_images": 5, "subjects": [subject]}
    path.write_text(json.dumps(found))


def test_the_table_is_of_stored_results(tmp_path):
    stored(tmp_path / "evaluate_a.json", "ade20k_150", 31.75)
    stored(tmp_path / "evaluate_b.json", "voc_20", 94.6)
    stored(tmp_path / "evaluate_c.json", "voc_20b", 12.0, never_trained="weights never trained")
    lines = [re.sub(" +", " ", line) for line in evaluation_table(tmp_path).splitlines()]
    assert "| CAT-Seg B (its repository) | 12.0 | 19.0 | 31.8 | 57.5 | 94.6 | 77.3 |" in lines
    assert "| PCA-Seg L (as listed publicly) | 18.3 | 26.7 | 41.5 | 64.7 | 98.4 | |" in lines
    assert "| eva-b-384, abababab, eager, float32, sliding | | | 31.8 | | 94.6 | |" in lines
    assert len(lines) == 6  # what was never trained is no row


def test_the_table_has_parts(tmp_path):
    parts = {"seen": 50.0, "unseen": 25.0, "harmonic_mean": 33.333}
    stored(tmp_path / "evaluate_p.json", "pascal_part_116", 40.0, parts=parts)
    assert "Pascal-Part-116 | 40.0 | 50.0 | 25.0 | 33.3 |" in re.sub(" +", " ", evaluation_table(tmp_path))
