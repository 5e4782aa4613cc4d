"""pcaseg: the deployment pipeline for PCA-Seg, an open-vocabulary segmentation model.

Importing the package imports neither torch nor a backend; each public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pcaseg.class_lists import class_list, class_list_names
from pcaseg.configs import presets
from pcaseg.errors import MissingDependencyError, PcasegError, install_hint

if TYPE_CHECKING:
    from pcaseg.deploy.folded import fold
    from pcaseg.model.checkpoint import load_model
    from pcaseg.runtime.segmenter import Segmenter

__version__ = "0.1.0"
__all__ = ["PcasegError", "Segmenter", "class_list", "class_list_names", "fold", "load_model", "presets"]

_LAZY = {
    "fold": ("pcaseg.deploy.folded", "torch"),
    "load_model": ("pcaseg.model.checkpoint", "torch"),
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
