"""pcaseg: the deployment pipeline for PCA-Seg, an open-vocabulary segmentation model.

Importing the package imports neither torch nor a backend; each public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from pcaseg.class_lists import class_list, class_list_names
from pcaseg.configs import presets
from pcaseg.errors import MissingDependencyError, PcasegError, install_hint

if TYPE_CHECKING:
    from pcaseg.benchmarks.benchmark import benchmark
    from pcaseg.deploy.folded import fold
    from pcaseg.evaluation.check import CheckReport, check_bundle
    from pcaseg.evaluation.evaluate import Evaluation, evaluate
    from pcaseg.export.tensorrt.build import build_engines
    from pcaseg.model.checkpoint import import_checkpoint, load_model, open_model
    from pcaseg.runtime.segmenter import Segmenter

# ONNX Runtime reads this when it is first imported: no device id in the home folder, no look-up of a host.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = [
    "CheckReport",
    "Evaluation",
    "PcasegError",
    "Segmenter",
    "benchmark",
    "build_engines",
    "check_bundle",
    "class_list",
    "class_list_names",
    "evaluate",
    "fold",
    "import_checkpoint",
    "load_model",
    "open_model",
    "presets",
]

_LAZY = {
    "CheckReport": ("pcaseg.evaluation.check", "benchmarks"),
    "Evaluation": ("pcaseg.evaluation.evaluate", "runtime"),
    "benchmark": ("pcaseg.benchmarks.benchmark", "benchmarks"),
    "build_engines": ("pcaseg.export.tensorrt.build", "tensorrt"),
    "check_bundle": ("pcaseg.evaluation.check", "benchmarks"),
    "evaluate": ("pcaseg.evaluation.evaluate", "runtime"),
    "fold": ("pcaseg.deploy.folded", "torch"),
    "import_checkpoint": ("pcaseg.model.checkpoint", "torch"),
    "load_model": ("pcaseg.model.checkpoint", "torch"),
    "open_model": ("pcaseg.model.checkpoint", "torch"),
    "Segmenter": ("pcaseg.runtime.segmenter", "runtime"),
}
"""Public name: (module that holds it, pip extra that the module needs)."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pcaseg' has no attribute {name!r}")
    module, extra = _LAZY[name]
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pcaseg"):
            raise
        raise MissingDependencyError(f"pcaseg.{name} needs the package {error.name}; {install_hint(extra)}") from error
