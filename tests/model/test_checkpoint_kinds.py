"""Files and folders of every kind are read as checkpoints, or called by their name; nothing in them is ever run."""

from __future__ import annotations

import builtins
import gzip
import io
import os
import pickle
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pcaseg.errors import CheckpointError
from pcaseg.model.checkpoint_file import Checkpoint
from pcaseg.runtime.vocabulary import Vocabulary

TENSORS = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "half": torch.arange(5).half()[1:],
    "turned": torch.arange(6, dtype=torch.float64).reshape(2, 3).t(),
    "brain": torch.arange(3).bfloat16(),
    "small": torch.arange(3.0).to(torch.float8_e4m3fn),
    "nothing": torch.zeros(0, 2),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "a.num_batches_tracked": torch.tensor(7),
}
BESIDE = {"epoch": 3, "when": {1, 2}, "loss": np.float64(0.5), "type": torch.float16, "on": torch.device("cpu")}


def same(found, wanted=TENSORS) -> bool:
    values = {name: t.detach() if "num_batches" in name else t.detach().float() for name, t in wanted.items()}
    return found.keys() == values.keys() and all(torch.equal(found[name], values[name]) for name in values)


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("protocol", range(1, 6))
def test_torch_files_of_every_protocol(tmp_path, protocol, archive):
    content = {"state_dict": TENSORS, **BESIDE}
    path = tmp_path / "c.pth"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
    assert same(Checkpoint.open(path).tensors)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_numpy_arrays(tmp_path, protocol):
    arrays = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "none": np.zeros((0, 2), np.float16),
    }
    (tmp_path / "r.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol))
    wanted = {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}
    assert same(Checkpoint.open(tmp_path / "r.pkl").tensors, wanted)


def test_shared_and_overlapping_numbers_stay_shared_in_value(tmp_path):
    base = torch.arange(10.0)
    content = {"a": base[2:5], "b": base[4:], "c": base.expand(2, 10)}
    for archive in (True, False):
        torch.save(content, tmp_path / "s.pt", _use_new_zipfile_serialization=archive)
        assert same(Checkpoint.open(tmp_path / "s.pt").tensors, content)


class Scripted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4), torch.nn.BatchNorm2d(8))
        self.text_projection = torch.nn.Parameter(torch.rand(4, 4))
        self.register_buffer("attn_mask", torch.ones(2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.visual(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_archives_are_read_without_their_code(tmp_path, monkeypatch):
    model = Scripted()
    for name, half in (("float", model), ("half", Scripted().half())):
        torch.jit.script(half).save(tmp_path / f"{name}.pt")
        monkeypatch.setattr(torch.jit, "load", pytest.fail)
        assert same(Checkpoint.open(tmp_path / f"{name}.pt").tensors, half.state_dict())


class Call:
    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    "system": lambda path: Call(os.system, f"touch {path}"),
    "open": lambda path: Call(open, str(path), "w"),
    "eval": lambda path: Call(eval, f"open({str(path)!r}, 'w')"),
    "popen": lambda path: Call(subprocess.Popen, ["touch", str(path)]),
    "getattr": lambda path: Call(getattr, Call(__import__, "os"), "system"),
    "hub": lambda path: Call(torch.hub.load, str(path)),
    "load": lambda path: Call(torch.load, str(path)),
    "loads": lambda path: Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {path}"))),
    "nested": lambda path: Call(torch.storage._load_from_bytes, pickle.dumps(Call(os.system, f"touch {path}"))),
    "partial": lambda path: Call(builtins.map, os.system, [f"touch {path}"]),
}


@pytest.mark.parametrize("protocol", range(1, 6))
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_run_nothing(tmp_path, kind, protocol):
    trap = tmp_path / "trap"
    content = {"model": {"w": torch.ones(1), "x": HOSTILE[kind](trap)}}
    writers = {
        "plain": lambda path: path.write_bytes(pickle.dumps({"x": HOSTILE[kind](trap)}, protocol)),
        "zip": lambda path: torch.save(content, path, pickle_protocol=protocol),
        "stream": lambda path: torch.save(
            content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=False
        ),
    }
    for name, write in writers.items():
        write(tmp_path / f"{name}.pth")
        message = refusal(tmp_path / f"{name}.pth")
        assert "never loaded" in message or "pickle.dump" in message
    assert not trap.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'touch trap'\ntR.",
        b"(S'touch trap'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x8c\x0atouch trap\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x0deval.__call__\x93.",
        b"\x80\x02c__torch__\nX\n)\x81}U\x01ac__main__\nY\nsb.",
    ],
)
def test_hand_written_pickles_run_nothing(tmp_path, monkeypatch, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pth").write_bytes(code)
    assert "never loaded" in refusal(tmp_path / "c.pth")
    assert os.listdir(tmp_path) == ["c.pth"]


def test_a_pickle_cannot_change_the_reader(tmp_path):
    """BUILD sets attributes of what is on the stack: of nothing that outlives the file."""
    for target in (b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"):
        (tmp_path / "c.pth").write_bytes(b"\x80\x02" + target + b"N}X\x08\x00\x00\x00__call__K\x01s\x86b.")
        refusal(tmp_path / "c.pth")
    torch.save(TENSORS, tmp_path / "good.pth")
    assert same(Checkpoint.open(tmp_path / "good.pth").tensors)


def test_whole_models_and_settings_are_named(tmp_path):
    import argparse

    for content, name in (
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"model": TENSORS, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
    ):
        torch.save(content, tmp_path / "m.pth")
        assert name in refusal(tmp_path / "m.pth") and "save its state_dict" in refusal(tmp_path / "m.pth")


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("c.pth"))
    return file.getvalue()


def numpy_archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.ones(2))
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
ONNX = b"\x08\x0a\x12\x07pytorch\x1a\x052.0.0:\x10"
KINDS = [
    ("lfs.pth", LFS, "Git LFS"),
    ("lfs.safetensors", LFS, "Git LFS"),
    ("annex.pt", b"/annex/objects/SHA256E-s9--00.pt\n", "git-annex"),
    ("page.pth", b"<!DOCTYPE html><html>", "web page"),
    ("page.safetensors", b"\n\n  <HTML lang='en'>", "web page"),
    ("bom.pth", b"\xef\xbb\xbf <!doctype HTML>", "web page"),
    ("wide.pth", "<html><head>".encode("utf-16"), "web page"),
    ("comment.bin", b"<!-- saved from --><html>", "web page"),
    ("xhtml.bin", b"<?xml version='1.0'?>\n<!DOCTYPE html>", "web page"),
    ("error.pth", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    ("error.pt", b'{"error": "Repository not found"}', "JSON"),
    ("list.pt", b'[{"a": 1}]', "JSON"),
    ("config.safetensors", b'{\n  "hidden": 3}', "JSON"),
    ("keras.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 90, "HDF5"),
    ("llama.bin", b"GGUF\x03\0\0\0", "GGUF"),
    ("a.npy", b"\x93NUMPY\x01\0", "NumPy array"),
    ("a.npz", numpy_archive(), "NumPy archive"),
    ("a.tflite", b"\x1c\0\0\0TFL3\0", "TensorFlow Lite"),
    ("m.onnx", ONNX, "ONNX graph"),
    ("renamed.pth", ONNX, "ONNX graph"),
    ("m.plan", b"ftrt\0\0\0\0", "TensorRT"),
    ("m.engine", os.urandom(8) + b"\0\xff", "TensorRT"),
    ("c.pth.gz", gzip.compress(b"x"), "gzip"),
    ("c.tar", tarred(), "tar archive"),
    ("c.7z", b"7z\xbc\xaf\x27\x1c\0\4", "7-Zip"),
    ("c.xz", b"\xfd7zXZ\0\0\4", "xz"),
    ("c.zip", zipped(model_dot_pth=b"x"), "zip archive"),
    ("c.keras", zipped(model_dot_weights_dot_h5=b"x", config_dot_json=b""), "Keras"),
    ("b.pcaseg.zip", zipped(segmenter_dot_onnx=b"x", manifest_dot_json=b"{}"), "bundle"),
    ("none.zip", zipped(), "zip archive"),
    ("model.ckpt-1.index", b"\x00\x00\xff\xfe", "TensorFlow checkpoint"),
    ("model.ckpt.data-00000-of-00001", b"\x00\x00\xff\xfe", "TensorFlow checkpoint"),
    ("frozen.pb", b"\x0a\x10\x12\xff", "TensorFlow graph"),
    ("c.msgpack", b"\x81\xa6params\xff", "Flax"),
    ("._c.pth", b"\x00\x05\x16\x07\x00\x02", "macOS"),
    ("photo.pth", b"\x89PNG\r\n\x1a\n", "image"),
    ("zeros.safetensors", b"\0" * 5000, "zeros"),
    ("c.pth.crdownload", b"PK\x03\x04", "unfinished download"),
    ("c.pth.part", b"\x80\x02", "unfinished download"),
    ("c.incomplete", b"", "unfinished download"),
    ("empty.pth", b"", "empty"),
    ("empty.safetensors", b"", "empty"),
    ("notes.pth", "Gewichte: später\n".encode(), "text file"),
]


@pytest.mark.parametrize(("name", "content", "said"), KINDS, ids=[kind[0] for kind in KINDS])
def test_every_other_kind_is_called_by_its_name(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert said in message and "; " in message
    assert ("damaged" not in message and "copy it again" not in message) or said == "empty"


def test_truly_damaged_files_are_called_so(tmp_path):
    torch.save(TENSORS, tmp_path / "zip.pth")
    torch.save(TENSORS, tmp_path / "stream.pth", _use_new_zipfile_serialization=False)
    save_file({"a": torch.ones(500)}, tmp_path / "s.safetensors")
    for name in ("zip.pth", "stream.pth", "s.safetensors"):
        data = (tmp_path / name).read_bytes()
        for length in (len(data) // 3, len(data) // 2, len(data) - 9):
            (tmp_path / f"cut.{name}").write_bytes(data[:length])
            assert "damaged" in refusal(tmp_path / f"cut.{name}")
    (tmp_path / "noise.pth").write_bytes(bytes(range(200, 256)) * 9)
    assert "damaged" in refusal(tmp_path / "noise.pth")


def test_a_download_that_aria2_has_not_finished(tmp_path):
    torch.save(TENSORS, tmp_path / "c.pth")
    (tmp_path / "c.pth.aria2").write_bytes(b"\0\1")
    assert "unfinished download" in refusal(tmp_path / "c.pth")


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_an_optimizer_alone_and_odd_tensors(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    for content in (optimizer.state_dict(), {"optimizer": {"lr": 1}, "iteration": 3}):
        torch.save(content, tmp_path / "o.pth")
        assert "state of an optimizer" in refusal(tmp_path / "o.pth")
    odd = {
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "sparse": torch.eye(3).to_sparse(),
        "int8": torch.ones(3, dtype=torch.int8),
        "no values": torch.ones(3, device="meta"),
    }
    for said, tensor in odd.items():
        torch.save({"model": {"good": torch.ones(1), "w": tensor}}, tmp_path / "odd.pth")
        assert f"w holds {said}" in refusal(tmp_path / "odd.pth")


def test_our_own_vocabularies_are_no_models(tmp_path):
    Vocabulary(("cat",), np.ones((1, 1), np.float32), "e" * 64).save(tmp_path / "v.safetensors")
    assert "is a vocabulary" in refusal(tmp_path / "v.safetensors")


FOLDERS = [
    (["model.safetensors", "config.json"], "give a file in it, such as model.safetensors"),
    (["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"], "such as pytorch_model.bin.index.json"),
    (["model_final.pth", "last_checkpoint"], "such as model_final.pth"),
    ([".metadata", "__0_0.distcp"], "dcp_to_torch"),
    (["latest", "zero_to_fp32.py"], "DeepSpeed"),
    (["global_step9/mp_rank_00_model_states.pt"], "DeepSpeed"),
    (["saved_model.pb", "variables/variables.index"], "TensorFlow"),
    (["checkpoint", "model.ckpt-1.index"], "TensorFlow"),
    (["archive/data.pkl", "archive/version"], "unpacked torch file"),
    (["manifest.json", "segmenter.onnx"], "bundle"),
    ([], "give the path of a .pth"),
]


@pytest.mark.parametrize(("names", "said"), FOLDERS)
def test_folders_are_called_by_their_kind(tmp_path, names, said):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    message = refusal(tmp_path)
    assert message.startswith("is a folder") and said in message


def test_a_link_to_nowhere(tmp_path):
    (tmp_path / "c.pth").symlink_to(tmp_path / "blob")
    assert "link to what is not there" in refusal(tmp_path / "c.pth")
