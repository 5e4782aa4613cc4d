"""Tuning points: what is packaged, and what a user's file changes."""

from __future__ import annotations

import json

import pytest

from pcaseg.errors import PcasegError
from pcaseg.kernels.aot import ARCHITECTURES, KERNELS
from pcaseg.kernels.registry import DTYPES
from pcaseg.kernels.tuning import choose, forced, tuning_point, tuning_points, user_file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    user_file().parent.mkdir()


def write(content: object) -> None:
    user_file().write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_has_points(kernel):
    for arch in ("default", "sm_75", *ARCHITECTURES):
        for dtype in DTYPES:
            point = tuning_point(kernel, arch, dtype)
            assert tuning_points(kernel)[point.name] == point
            assert set(point.options) == {"num_warps", "num_stages"}
            assert all(name.isupper() for name in point.constexprs)


def test_user_overrides_one_architecture():
    blocks = {"BLOCK_M": 32, "ROWS": 16, "BLOCK_D": 64, "num_warps": 8, "num_stages": 3}
    write({"cost_volume": {"points": {"mine": blocks}, "use": {"sm_87": {"fp16": "mine"}}}})
    point = tuning_point("cost_volume", "sm_87", "fp16")
    assert (point.name, point.constexprs["BLOCK_D"], point.options["num_stages"]) == ("mine", 64, 3)
    assert tuning_point("cost_volume", "sm_87", "bf16").name != "mine"
    assert tuning_point("cost_volume", "sm_80", "fp16").name != "mine"


def test_a_choice_is_kept_in_the_users_file():
    assert tuning_point("cost_volume", "sm_87", "fp16").name == "wide"
    choose("cost_volume", "sm_87", "fp16", "medium")
    choose("class_attention", "sm_87", "fp16", "narrow")
    assert tuning_point("cost_volume", "sm_87", "fp16").name == "medium"
    assert tuning_point("cost_volume", "sm_87", "fp32").name == "narrow"
    assert json.loads(user_file().read_text())["class_attention"]["use"] == {"sm_87": {"fp16": "narrow"}}
    with pytest.raises(PcasegError, match="point='huge': cost_volume has narrow, medium, wide"):
        choose("cost_volume", "sm_87", "fp16", "huge")


def test_a_point_may_be_forced():
    point = tuning_points("cost_volume")["narrow"]
    with forced("cost_volume", point):
        assert tuning_point("cost_volume", "sm_90", "bf16") is point
    assert tuning_point("cost_volume", "sm_90", "bf16") is not point


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no readable tuning file"),
        ("[]", "no tuning file"),
        ({"cost_volume": {"use": {"default": {"fp16": "lost"}}}}, "cost_volume uses the point 'lost'; choose one of"),
    ],
)
def test_broken_files_are_named(content, message):
    write(content)
    with pytest.raises(PcasegError, match=message) as error:
        tuning_point("cost_volume", "sm_90", "fp16")
    assert str(user_file()) in str(error.value)
