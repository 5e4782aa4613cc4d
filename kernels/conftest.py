"""Keeps pytest's doctests out of the kernels' files where there is no Triton, which is for Linux alone."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["triton/*"]
