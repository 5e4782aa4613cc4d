"""The preset `tiny`: attention over classes without padding, the same in the eager model, folded and in graphs."""

from __future__ import annotations

from dataclasses import replace

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from support import small_model

import pcaseg
from pcaseg.configs import get_preset
from pcaseg.export.graphs import export_segmenter
from pcaseg.export.options import ExportOptions

CLASS_COUNTS = (1, 7, 20, 256, 300)
PADDED = replace(get_preset("tiny"), class_padding=256)


@pytest.fixture(scope="module", params=["parallel", pytest.param("serial", marks=pytest.mark.slow)])
def exported(request, tmp_path_factory):
    model = small_model("tiny", aggregation=request.param)
    path = tmp_path_factory.mktemp("tiny") / "segmenter.onnx"
    export_segmenter(model, path)
    return model, path


def inputs(T: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(T)
    images = torch.rand(1, 3, 96, 96, generator=generator) * 255
    return images, F.normalize(torch.randn(T, 64, generator=generator), dim=-1)


@torch.no_grad()
def test_eager_folded_and_graph_agree(exported):
    model, path = exported
    folded, session = pcaseg.fold(model), onnxruntime.InferenceSession(path)
    for T in CLASS_COUNTS if model.aggregation == "parallel" else (1, 20):
        images, text = inputs(T)
        reference = model(images, text[:, None])
        assert reference.shape == (1, T, 48, 48)
        kept = reference != -100
        (graph,) = session.run(["logits"], {"image": images.numpy(), "text": text.numpy()})
        for name, values in (("folded", folded(images, text[:, None], chunk=8)), ("graph", graph)):
            difference = (torch.as_tensor(values) - reference).abs().max() / reference[kept].abs().max()
            assert difference <= 1e-4, (name, T)


def test_rewrites_are_exact():
    model = small_model("tiny").double()
    images, text = (tensor.double() for tensor in inputs(7))
    with torch.no_grad():
        reference, folded = model(images, text[:, None]), pcaseg.fold(model)(images, text[:, None])
    assert (reference - folded).abs().max() <= 1e-9 * reference.abs().max()


def test_nothing_of_padding_is_left(exported, small, shared_bundle):
    """No parameters and no constants for it: a padded model and its graph have both."""
    model, path = exported
    padded = shared_bundle(ExportOptions()) / "segmenter.onnx"
    for one, file, left in ((model, path, False), (small, padded, True)):
        assert any("padding" in name for name in one.state_dict()) == left
        assert any("pad_" in tensor.name for tensor in onnx.load(file).graph.initializer) == left


def test_padding_would_show():
    """The same weights with padding give other logits: the tests above would notice it."""
    model, padded = small_model("tiny"), small_model(PADDED)
    padded.load_state_dict(model.state_dict(), strict=False)
    images, text = inputs(1)
    with torch.no_grad():
        assert not torch.allclose(model(images, text[:, None]), padded(images, text[:, None]), rtol=1e-3)


def test_size():
    """In float16 the weights are at most 8 MB, CLIP's whole token table among them."""
    assert 2 * sum(tensor.numel() for tensor in small_model("tiny").state_dict().values()) <= 8e6


def test_text_tower_reads_prompts_of_any_length():
    tower = small_model("tiny").text_tower
    from open_clip.tokenizer import tokenize

    tokens = tokenize(["A photo of a red car in the scene", "A photo of a mug in the scene"])
    length = int((tokens != 0).sum(dim=1).max())
    assert length < 20
    torch.testing.assert_close(tower(tokens[:, :length]), tower(tokens))
