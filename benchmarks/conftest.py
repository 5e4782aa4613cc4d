"""What the suites of pytest-benchmark share: the model, its bundle, and what may be chosen on the command line.

`pytest benchmarks/bench_images.py --benchmark-autosave`, and later the same with `--benchmark-compare`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pcaseg.benchmarks.contenders import Contender, Setting, SkippedError, open_contender
from pcaseg.benchmarks.plan import Options, Subject
from pcaseg.benchmarks.subjects import open_subject


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the suites."""
    group = parser.getgroup("pcaseg")
    group.addoption("--subject", default="eva-b-384", help="a bundle, or a preset for seeded weights")
    group.addoption("--classes", type=int, default=20, help="size of the vocabulary")
    group.addoption("--on-device", default="cpu", help="cpu or cuda")


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """The model, its bundle and photographs."""
    with open_subject(request.config.getoption("--subject")) as (subject, _, _):
        yield subject


@pytest.fixture(scope="session")
def contender(request: pytest.FixtureRequest, subject: Subject) -> Contender:
    """The backend that a test is parametrised with, opened."""
    device = request.config.getoption("--on-device")
    bundle = next(iter(subject.bundles.values()))
    setting = Setting(subject.model, bundle, bundle.manifest.precision, device, Options().thread_counts[0])
    try:
        return open_contender(request.param, setting)
    except SkippedError as error:
        pytest.skip(str(error))
