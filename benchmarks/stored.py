"""Stored results: the folder, and the JSON files in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pcaseg.paths import entries, real_path

RESULTS = real_path(__file__).parent / "results"


def stored_reports(results: Path, pattern: str) -> Iterator[dict[str, Any]]:
    """Contents of the files whose names match, in order of their names."""
    for path in entries(results, pattern):
        yield json.loads(path.read_text(encoding="utf-8"))
