"""The record of a training, beside its weights: how they can be made again, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pcaseg.files import atomic_path, sha256_of
from pcaseg.training.log import read_log

RECORD = "record.json"


def write_record(
    weights: Path,
    *,
    command: str,
    data: str,
    seed: int,
    recipe: Mapping[str, object],
    seconds: float,
    environment: Mapping[str, str],
) -> Path:
    """Writes `record.json` beside the weights.

    Args:
        weights: the file of `train`.
        command: as typed.
        data: what the stream was.
        seed: of drawn weights and data.
        recipe: in full.
        seconds: that the last run took; of a resumed training not the whole, which the log shows.
        environment: machine, versions and commit.

    Raises:
        OutputError: the folder cannot be written.
    """
    content = {
        "schema_version": 1,
        "command": command,
        "weights_sha256": sha256_of(weights),
        "data": data,
        "seed": seed,
        "recipe": recipe,
        "seconds": round(seconds, 1),
        "environment": dict(environment),
        "log": read_log(weights.parent),
    }
    path = weights.parent / RECORD
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def is_recorded(weights: Path) -> bool:
    """True where the record beside the weights is of them and of the log there."""
    try:
        content = json.loads((weights.parent / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    found = (content.get("weights_sha256"), content.get("log")) if isinstance(content, dict) else ()
    return found == (sha256_of(weights), read_log(weights.parent))
