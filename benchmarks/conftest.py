"""Fixtures and options of the suites of pytest-benchmark: the model and its bundle, chosen on the command line.

`pytest benchmarks/bench_images.py --benchmark-autosave`, and later the same with `--benchmark-compare`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pcaseg.benchmarks.implementations import Implementation, Setting, SkippedError, open_implementation
from pcaseg.benchmarks.plan import BenchOptions, Target
from pcaseg.benchmarks.targets import open_target


def pytest_addoption(parser: pytest.Parser) -> None:
    """BenchOptions of the suites."""
    group = parser.getgroup("pcaseg")
    group.addoption("--target", default="eva-b-384", help="a bundle, or a preset for seeded weights")
    group.addoption("--classes", type=int, default=20, help="size of the vocabulary")
    group.addoption("--on-device", default="cpu", help="cpu or cuda")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The model, its bundle and photographs."""
    with open_target(request.config.getoption("--target")) as (target, _, _):
        yield target


@pytest.fixture(scope="session")
def implementation(request: pytest.FixtureRequest, target: Target) -> Implementation:
    """The backend that a test is parametrised with, opened."""
    device = request.config.getoption("--on-device")
    bundle = next(iter(target.bundles.values()))
    setting = Setting(target.model, bundle, bundle.manifest.precision, device, BenchOptions().thread_counts[0])
    try:
        return open_implementation(request.param, setting)
    except SkippedError as error:
        pytest.skip(str(error))
