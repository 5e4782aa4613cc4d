"""The commands as a user types them, and what each says to input that it cannot use."""

from __future__ import annotations

import json
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image
from support import SMALL_EVA, SMALL_OPENAI, small_model
from support_cli import assert_refused, bundle, files_in, photo, run

from pcaseg.files import sha256_of
from pcaseg.model.checkpoint import save_model
from pcaseg.model.names import SEED_ENTRY, to_published

SEEDED = "drawn from a seed, not trained: the labels mean nothing"


@pytest.mark.long
def test_import_export_segment_check(run, tmp_path, photo):
    """The whole thread, with the checkpoint in the published form."""
    model = small_model(seed=2)
    state = to_published(model.state_dict(), model.preset)
    torch.save({"model": state | {SEED_ENTRY: torch.tensor(2)}, "iteration": 5}, tmp_path / "ckpt.pth")
    code, out, _ = run("import", tmp_path / "ckpt.pth", "--preset", "small-eva", "--out", tmp_path / "m.safetensors")
    assert code == 0 and "small-eva, parallel" in out and SEEDED in out
    code, out, _ = run("export", tmp_path / "m.safetensors", "--out", tmp_path / "b.pcaseg")
    assert code == 0 and "float32" in out and SEEDED in out
    manifest = json.loads((tmp_path / "b.pcaseg" / "manifest.json").read_text())
    assert manifest["weights"]["sha256"] == sha256_of(tmp_path / "m.safetensors")
    code, out, _ = run(
        "segment", photo, "--bundle", tmp_path / "b.pcaseg", "--classes", "cat, grass", "--out", tmp_path / "o"
    )
    assert code == 0 and SEEDED in out and str(tmp_path / "o" / "photo_overlay.png") in out
    assert files_in(tmp_path / "o") == ["photo.json", "photo_labels.png", "photo_overlay.png"]
    summary = json.loads((tmp_path / "o" / "photo.json").read_text())
    assert [entry["name"] for entry in summary["classes"]] == ["cat", "grass"] and summary["weights"] == "seeded"
    assert Image.open(tmp_path / "o" / "photo_labels.png").size == (60, 40)
    code, out, _ = run(
        "check", tmp_path / "b.pcaseg", "--images", photo, "--classes", "1,3,300", "--json", tmp_path / "rows.json"
    )
    assert code == 0 and "agree: relative error" in out and SEEDED in out
    report = json.loads((tmp_path / "rows.json").read_text())
    assert report["environment"]["versions"]["torch"] and report["weights"] == "seeded"
    rows = report["rows"]
    assert [row["classes"] for row in rows] == [1, 3, 300]
    assert all(row["passed"] and row["relative_error"] <= 1e-4 for row in rows)
    code, out, _ = run(
        "check", tmp_path / "b.pcaseg", "--images", photo, "--classes", "2", "--strategy", "sliding"
    )  # fmt: skip
    assert code == 0


@pytest.mark.long
def test_a_camera_s_bundle(run, tmp_path, photo):
    """Export with a fixed size, segment, check; what it cannot take is said."""
    camera, other = tmp_path / "camera.pcaseg", tmp_path / "other.png"
    Image.open(photo).resize((61, 40)).save(other)
    options = ("--graph", "labels", "--strategy", "sliding", "--image-size", "40x60")
    code, out, _ = run("export", "small-eva", "--out", camera, *options)
    assert code == 0 and "labels (sliding), float32" in out and SEEDED in out
    names = ("--bundle", camera, "--classes", "cat, grass, sky")
    assert run("segment", photo, *names, "--out", tmp_path / "o")[0] == 0
    assert json.loads((tmp_path / "o" / "photo.json").read_text())["strategy"] == "sliding"
    code, _, err = run("segment", other, *names, "--out", tmp_path / "o")
    assert code == 2 and f"{other}: 40 x 61 pixels" in err and "takes 40 x 60 alone; resize the frame" in err
    answer = run("segment", photo, *names, "--strategy", "single", "--out", tmp_path / "o")
    assert_refused(answer, "the bundle's graph holds 'sliding'", "leave the strategy out")
    rows = tmp_path / "rows.json"
    code, out, _ = run("check", camera, "--images", photo, other, "--classes", "3,20", "--json", rows)
    assert code == 0 and "agree: difference of confidence at most" in out
    report = json.loads(rows.read_text())
    assert report["graph"] == "labels" and {row["strategy"] for row in report["rows"]} == {"sliding"}
    assert all(row["passed"] and row["label_agreement"] >= 0.999 for row in report["rows"])
    assert_refused(run("check", camera, "--strategy", "single"), "the bundle's graph holds 'sliding'")


def test_export_options_that_cannot_be_used(run, tmp_path):
    out = tmp_path / "b.pcaseg"
    export = ("export", "small-eva", "--out", out)
    assert_refused(run(*export, "--strategy", "sliding"), "a graph of logits runs any; leave it out")
    assert_refused(run(*export, "--image-size", "480x640"), "a graph of logits takes any; leave it out")
    for size in ("0x640", "480x8193", "720", "720x", "720x1280x3", "-1x5", "1e3x5", "²x5", "720 x 1280", ""):
        with pytest.raises(SystemExit) as caught:
            run(*export, "--graph", "labels", "--image-size", size)
        assert caught.value.code == 2
    assert files_in(tmp_path) == []


def test_check_finds_a_wrong_bundle(run, bundle, tmp_path, photo):
    """The bundle of one seed against the model of another: exit code 1, and the table says so."""
    save_model(small_model(seed=9), tmp_path / "other.safetensors")
    code, out, _ = run("check", bundle, "--model", tmp_path / "other.safetensors", "--images", photo, "--classes", "5")
    assert code == 1 and "DISAGREE" in out and "FAILED" in out


def test_eager_model_segments_too(run, bundle, tmp_path, photo):
    save_model(small_model(), tmp_path / "m.safetensors")
    names = ("--classes", "cat; tv monitor, television")
    assert run("segment", photo, "--model", tmp_path / "m.safetensors", *names, "--out", tmp_path / "a")[0] == 0
    assert run("segment", photo, "--bundle", bundle, *names, "--out", tmp_path / "b")[0] == 0
    a, b = (np.asarray(Image.open(tmp_path / side / "photo_labels.png")) for side in "ab")
    assert (a == b).mean() >= 0.999
    summaries = [json.loads((tmp_path / side / "photo.json").read_text()) for side in "ab"]
    assert [s["backend"] for s in summaries] == ["torch-cpu", "onnxruntime-cpu"]


def test_folder_is_resumed_and_bad_images_are_noted(run, bundle, tmp_path, photo):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for name in ("a.png", "a.jpg", "b.png"):
        Image.open(photo).save(folder / name)
    (folder / "broken.png").write_bytes(photo.read_bytes()[:100])
    command = ("segment", folder, "--bundle", bundle, "--classes", "cat, grass", "--out", out)
    code, said, err = run(*command)
    assert code == 2 and "3 segmented, 0 done before and skipped, 1 failed" in said
    assert f"error: {folder / 'broken.png'}" in err
    assert {name for name in files_in(out) if name.endswith(".json")} == {"a_png.json", "a_jpg.json", "b.json"}
    (folder / "broken.png").unlink()
    (out / "b.json").unlink()
    code, said, _ = run(*command)
    assert code == 0 and "1 segmented, 2 done before and skipped, 0 failed" in said
    code, said, _ = run(*command[:5], "cat, dog", "--out", out)
    assert code == 0 and "3 segmented, 0 done before" in said


def test_twelve_bits_are_segmented_anew_with_other_bits(run, bundle, tmp_path, photo):
    with Image.open(photo) as picture:
        values = np.asarray(picture.convert("L")).astype(np.uint16) * 16
    Image.fromarray(values).save(tmp_path / "frame.png")
    out = tmp_path / "out"
    command = ("segment", tmp_path / "frame.png", photo, "--bundle", bundle, "--classes", "cat, grass", "--out", out)
    for bits, said in (("12", "2 segmented"), ("12", "0 segmented, 2 done before"), ("13", "2 segmented")):
        code, out_, _ = run(*command, "--bits", bits)
        assert code == 0 and said in out_
    assert json.loads((out / "frame.json").read_text())["bits"] == 13
    code, said, err = run(*command, "--bits", "8")
    assert code == 2 and "frame.png: values" in err and "outside the 8 bits" in err and "1 failed" in said
    with pytest.raises(SystemExit) as stopped:
        run(*command, "--bits", "17")
    assert stopped.value.code == 2


@pytest.mark.parametrize("arena", ["grow", "shrink", "off"])
def test_arena(run, bundle, tmp_path, photo, arena):
    names = ("--classes", "cat, grass", "--arena", arena, "--out", tmp_path / "o")
    assert run("segment", photo, "--bundle", bundle, *names)[0] == 0
    assert_refused(run("segment", photo, *names), "--arena: is for a bundle with --backend onnxruntime")
    answer = run("segment", photo, "--bundle", bundle, "--backend", "torch", *names)
    assert_refused(answer, f"arena='{arena}': is not for the backend 'torch'")


def test_vocabulary_file(run, bundle, tmp_path, photo):
    path = tmp_path / "names.safetensors"
    assert run("vocab", "--bundle", bundle, "--classes", "cat, grass", "--out", path)[0] == 0
    slim = copytree(bundle, tmp_path / "slim.pcaseg")
    (slim / "text_encoder.onnx").unlink()  # a robot that never encodes text does not need it
    assert run("segment", photo, "--bundle", slim, "--vocabulary", path, "--out", tmp_path / "o")[0] == 0
    assert run("segment", photo, "--bundle", bundle, "--vocabulary", "voc_20", "--out", tmp_path / "v")[0] == 0
    (tmp_path / "list.txt").write_text("cat\n\ngrass\n")
    assert (
        run("segment", photo, "--bundle", bundle, "--vocabulary", tmp_path / "list.txt", "--out", tmp_path / "t")[0]
        == 0
    )


def test_presets(run):
    code, out, _ = run("presets")
    assert code == 0 and "eva-b-384" in out and "openai-l-336" in out


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (None, "no such file"),
        (b"", "empty"),
        ("half", "half-copied"),
        (b"hello, I am text", "not an image"),
    ],
    ids=["missing", "empty", "truncated", "text"],
)
def test_bad_image(run, bundle, tmp_path, photo, content, fragment):
    bad = tmp_path / "bad.png"
    if content is not None:
        bad.write_bytes(photo.read_bytes()[:200] if content == "half" else content)
    answer = run("segment", bad, "--bundle", bundle, "--classes", "cat", "--out", tmp_path / "o")
    assert answer[0] == 2 and answer[2].count("error: ") == 1
    assert str(bad) in answer[2] and fragment in answer[2]
    assert files_in(tmp_path / "o") == []


@pytest.mark.parametrize(
    ("classes", "fragment"),
    [
        ("", "blank"),
        (" , ", "blank"),
        ("cat, grass, Cat", "keep one"),
        ("x" * 10_000, "10000 characters"),
        ("cat, " + "word " * 90, "77 tokens"),
        ("cat, " + "\u8349" * 60, "77 tokens"),
        ("cat, gr\u00adass", "U+00AD (SOFT HYPHEN)"),
        ("red car; red\u00a0 car", "one to the text tower"),
        (",".join(f"n{i}" for i in range(65_536)), "at most 65535"),
    ],
    ids=["empty", "blank", "duplicate", "characters", "tokens", "bytes", "hyphen", "spaces", "many"],
)
@pytest.mark.parametrize("eager", [False, True], ids=["bundle", "model"])
def test_bad_classes_are_found_before_a_network_is_opened(
    run, bundle, tmp_path, photo, monkeypatch, eager, classes, fragment
):
    for opener in ("pcaseg.runtime.segmenter.open_backend", "pcaseg.model.checkpoint.open_model"):
        monkeypatch.setattr(opener, lambda *_, **__: pytest.fail("a network was opened"))
    network = ("--model", "tiny") if eager else ("--bundle", bundle)
    answer = run("segment", photo, *network, "--classes", classes, "--out", tmp_path / "o")
    assert_refused(answer, "--classes", fragment)
    assert files_in(tmp_path / "o") == []


def test_bad_vocabulary_sources(run, bundle, tmp_path, photo):
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "long.csv").write_text("id,name\n0," + "word " * 90)
    (tmp_path / "foreign.safetensors").write_bytes(b"nonsense")
    for source, fragment in (
        (tmp_path / "empty.txt", "give at least one"),
        (tmp_path / "latin.txt", "line 1 is not UTF-8"),
        (tmp_path / "long.csv", "77 tokens"),
        (tmp_path / "absent.txt", "cannot be read"),
        (tmp_path / "foreign.safetensors", "not a safetensors file"),
        ("ade20k_151", "ade20k_150"),
    ):
        answer = run("segment", photo, "--bundle", bundle, "--vocabulary", source, "--out", tmp_path / "o")
        assert_refused(answer, source, fragment)


def test_wrong_preset_for_a_checkpoint(run, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules["pcaseg.configs"]._PRESETS, "small-openai", SMALL_OPENAI)
    model = small_model(SMALL_EVA)
    torch.save({"model": to_published(model.state_dict(), model.preset)}, tmp_path / "c.pth")
    out = tmp_path / "out" / "m.safetensors"
    answer = run("import", tmp_path / "c.pth", "--preset", "small-openai", "--out", out)
    assert_refused(answer, tmp_path / "c.pth", "it is one of preset small-eva with aggregation parallel: use that")
    assert_refused(run("import", tmp_path / "c.pth", "--preset", "huge", "--out", out), "huge: no such preset")
    assert not out.parent.exists()


@pytest.mark.parametrize("name", ["segmenter.onnx", "text_encoder.onnx", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["tampered", "half-copied", "missing"])
def test_damaged_bundle(run, bundle, tmp_path, photo, name, damage):
    copy = copytree(bundle, tmp_path / "copy.pcaseg")
    data = (copy / name).read_bytes()
    if damage == "missing":
        (copy / name).unlink()
    elif damage == "half-copied":
        (copy / name).write_bytes(data[: len(data) // 2])
    elif name == "manifest.json":  # vouches for another file than the one there
        digest = json.loads(data)["files"]["segmenter.onnx"]["sha256"].encode()
        (copy / name).write_bytes(data.replace(digest, digest[::-1]))
    else:
        (copy / name).write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    for command in (
        ("segment", photo, "--bundle", copy, "--classes", "cat", "--out", tmp_path / "o"),
        ("check", copy, "--images", photo, "--classes", "1"),
    ):
        named = "segmenter.onnx" if (name, damage) == ("manifest.json", "tampered") else name
        assert_refused(run(*command), copy / named)
    assert files_in(tmp_path / "o") == []


def test_not_a_bundle(run, tmp_path, photo):
    (tmp_path / "folder").mkdir()
    for path, fragment in (
        (tmp_path / "none", "no such bundle"),
        (tmp_path / "folder", "manifest.json"),
        (photo, "zip"),
    ):
        answer = run("segment", photo, "--bundle", path, "--classes", "cat", "--out", tmp_path / "o")
        assert_refused(answer, path, fragment)


def test_devices_and_control_characters(run, bundle, tmp_path):
    answer = run("segment", "/dev/zero", "--bundle", bundle, "--classes", "cat", "--out", tmp_path / "o")
    assert answer[0] == 2 and "device or pipe" in answer[2]
    answer = run("segment", "/dev/zero", "--bundle", bundle, "--classes", "c\x1bat", "--out", tmp_path / "o")
    assert_refused(answer, "control character")


def test_usage_errors_exit_with_2(run, bundle, photo, capsys):
    usages = (
        ["segment", photo],
        ["segment", photo, "--bundle", bundle],
        ["check", bundle, "--classes", "0"],
        ["vocab", "--bundle", bundle, "--classes", "cat", "--out", ""],
        ["segment", photo, "--bundle", bundle, "--classes", "cat", "--threads", "-1"],
        ["segment", photo, "--bundle", bundle, "--classes", "cat", "--threads", "0"],
        ["evaluate", "--data", photo, "--bundle", bundle, "--out", "o", "--threads", "99999"],
        ["evaluate", "--data", photo, "--bundle", bundle, "--out", "o", "--processes", "99999"],
        ["train", "--preset", "tiny", "--out", "o", "--workers", "99999"],
        [],
    )
    for words in usages:
        with pytest.raises(SystemExit) as caught:
            run(*words)
        assert_refused((caught.value.code, *capsys.readouterr()), "; see pcaseg", " --help")
    assert_refused(run("segment", photo, "--bundle", bundle, "--classes", "cat", "--backend", "cuda"), "choose one of")
    assert_refused(run("segment", photo, "--bundle", bundle, "--classes", "cat", "--device", "tpu"), "choose one of")
