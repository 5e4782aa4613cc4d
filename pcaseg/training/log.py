"""Log of a training: JSON lines, TensorBoard, a progress bar."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pcaseg.errors import MissingDependencyError, OutputError, install_hint
from pcaseg.files import atomic_path
from pcaseg.paths import exists

LOG = "log.jsonl"
"""Its name in the folder of a training: a JSON object per line, `step` counted from 1."""


class TrainingLog:
    """Writes rows of one training; rows beyond `done` steps, left by a killed run, are dropped.

    Raises:
        MissingDependencyError: TensorBoard is asked for and not installed.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, done: int, steps: int, tensorboard: bool, progress: bool) -> None:
        self._path = folder / LOG
        self._board = _board(folder, done) if tensorboard else None
        rows = [row for row in read_log(folder) if row["step"] <= done]
        with atomic_path(self._path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self._bar = tqdm(
            total=steps, initial=done, unit="step", file=sys.stderr, disable=not progress, dynamic_ncols=True
        )
        self._last = time.perf_counter(), done

    def step(self, shown: dict[str, float]) -> None:
        """One step done; `shown` goes to the progress bar."""
        self._bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()}, refresh=False)
        self._bar.update()

    def row(self, step: int, values: dict[str, Any], *, images: int = 0) -> None:
        """One row, at once on disk. With `images` per step, the rates since the last such row are added.

        What is not finite, such as the gradient of a step that float16 leaves out, is null: JSON knows no other word.
        """
        values = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}
        if images:
            now, (then, before) = time.perf_counter(), self._last
            self._last = now, step
            rate = (step - before) / max(now - then, 1e-9)
            values = values | {"steps_per_s": rate, "images_per_s": rate * images}
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step} | values) + "\n")
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror}); make room, then resume") from error
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._bar.close()
        if self._board is not None:
            self._board.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a training's log; a last line that a kill cut short is left out."""
    path = folder / LOG
    if not exists(path, error=OutputError):
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _board(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            f"TensorBoard scalars need the package tensorboard; {install_hint('training')}"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
