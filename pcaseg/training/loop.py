"""The loop: from a recipe and a stream to trained weights, resumable at any step."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pcaseg.configs import check_choice
from pcaseg.data.batches import TrainingBatch, TrainingStream
from pcaseg.errors import OutputError, PcasegError
from pcaseg.files import remove_partial
from pcaseg.model.checkpoint import save_model
from pcaseg.model.fingerprint import tensors_sha256
from pcaseg.model.network import PCASeg, WeightsSource
from pcaseg.paths import exists, is_file, size_of
from pcaseg.training.distributed import Processes, joined_processes, mean_over_processes, share_batch_norm, wrapped
from pcaseg.training.learner import Learner, learner_inputs
from pcaseg.training.log import LOG, TrainingLog, read_log
from pcaseg.training.parameters import build_optimizer, held_rows, set_learning, set_rate
from pcaseg.training.recipes import Recipe, Stage
from pcaseg.training.record import RECORD
from pcaseg.training.state import CHECKPOINT, Identity, TrainingState, restore_state, save_state

MODEL = "model.safetensors"
"""Name of the trained weights in the folder of a training."""

FINISH = "finish_seconds"
"""Key in the last row of the log: seconds that the last evaluation and the writing of the weights took."""

TrainingPrecision = Literal["float32", "float16", "bfloat16"]
Evaluation = Callable[[PCASeg], dict[str, float]]
"""Function from a model in evaluation mode to figures by name, for the log."""


class TrainingError(PcasegError):
    """A training that cannot go on."""


@dataclass(frozen=True)
class RunOptions:
    """Settings that do not change the weights.

    Attributes:
        resume: `never` refuses a folder that holds a checkpoint; `if-possible` goes on from it.
        device: `cpu`, `cuda` or `cuda:N`; None takes a GPU where there is one.
        workers: processes that make batches ahead; 0 makes them in between.
        checkpoint_every, log_every, evaluate_every: steps; 0 never evaluates.
        storage: of the trained weights.
        tensorboard, progress: whether to write scalars, and to show a progress bar.
    """

    resume: Literal["never", "if-possible"] = "never"
    device: str | None = None
    workers: int = 0
    checkpoint_every: int = 500
    log_every: int = 20
    evaluate_every: int = 0
    storage: Literal["float32", "float16"] = "float32"
    tensorboard: bool = False
    progress: bool = False


def train(
    model: PCASeg,
    recipe: Recipe,
    stream: TrainingStream,
    out: Path,
    *,
    data: str,
    seed: int = 0,
    precision: TrainingPrecision | None = None,
    options: RunOptions | None = None,
    evaluate: Evaluation | None = None,
) -> Path | None:
    """Trains a model and writes its weights.

    Args:
        model: its weights are where training starts.
        recipe: the stages and the optimiser.
        stream: the batches.
        out: folder for the checkpoint, the log, and in the end the weights.
        data: what the stream is, for the checkpoint.
        seed: of the stream and the drawn weights, for the checkpoint.
        precision: of towers and aggregator; None for bfloat16 on a GPU that has it, float16 on others, float32 on CPUs.
        options: what does not change the weights.
        evaluate: called every `evaluate_every` steps and then in the end too, in the first process.

    Returns:
        The file of weights, with the published names, which `open_model` reads; None in all processes but the
        first, which writes it.

    Raises:
        TrainingError: a loss or gradient is not finite, the GPU is full, or a worker was killed; the last checkpoint
            is intact.
        OutputError: `out` cannot be written, holds a checkpoint and `resume` is `never`, or holds no checkpoint and
            files that training would replace.
        CheckpointError: the checkpoint is damaged or of another training.
    """
    options = options or RunOptions()
    with joined_processes(options.device) as processes:
        chosen = precision or _default_precision(processes.device)
        check_choice(chosen, TrainingPrecision, what="precision")
        start = tensors_sha256(model.state_dict())
        identity = Identity(
            model.preset.name, model.aggregation, model.dense_mode, recipe, seed, data, start, chosen
        )  # fmt: skip
        trainer = _Trainer(model, stream, out, processes, identity, options, evaluate)
        trainer.run()
        return out / MODEL if trainer.writes else None


def _default_precision(device: torch.device) -> TrainingPrecision:
    if device.type == "cpu":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


@dataclass
class _Trainer:
    model: PCASeg
    stream: TrainingStream
    out: Path
    processes: Processes
    identity: Identity
    options: RunOptions
    evaluate: Evaluation | None
    recipe: Recipe = field(init=False)
    state: TrainingState = field(init=False)

    def __post_init__(self) -> None:
        self.recipe = self.identity.recipe
        for stage in self.recipe.stages:
            if stage.batch % self.processes.world:
                raise PcasegError(
                    f"batch={stage.batch}: {self.processes.world} processes share it; start a number that divides it"
                )
        self.model.to(self.processes.device).to(memory_format=torch.channels_last).train()
        if self.processes.world > 1:
            share_batch_norm(self.model)
        learner = Learner(self.model, self.recipe).to(self.processes.device)
        scaler = torch.amp.GradScaler(self.processes.device.type, enabled=self.identity.precision == "float16")
        average = {}
        if self.recipe.average:
            average = {name: t.detach().clone() for name, t in self.model.state_dict().items() if t.is_floating_point()}
        self.state = TrainingState(learner, build_optimizer(learner, self.recipe), scaler, average)
        self.held = held_rows(self.model, self.recipe)

    @property
    def writes(self) -> bool:
        """True in the process that writes."""
        return self.processes.rank == 0

    def run(self) -> None:
        """Starts or goes on, to the end."""
        self._open()
        if not self.writes:
            self._stages(None)
            return
        if self._finished():
            return
        steps, shown = self.recipe.steps, self.options.progress
        if shown and self.options.resume != "never":
            self._say_start()
        log = TrainingLog(
            self.out, done=self.state.step, steps=steps, tensorboard=self.options.tensorboard, progress=shown
        )  # fmt: skip
        try:
            self._stages(log)
            self._finish(log)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"{self.out}: the GPU's memory is full at step {self.state.step + 1}; the last checkpoint is intact: "
                "resume on more GPUs, which share a batch (torchrun)"
            ) from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                f"{self.out}: a process that makes batches was killed, as where memory runs out; the last checkpoint "
                "is intact: resume with fewer --workers"
            ) from error
        finally:
            log.close()

    def _finished(self) -> bool:
        """True where the weights are written, which the last row of the log says."""
        rows = read_log(self.out)[-1:] if self.state.step == self.recipe.steps else []
        return exists(self.out / MODEL) and any(FINISH in row for row in rows)

    def _open(self) -> None:
        """Makes the folder, or restores the checkpoint there."""
        if exists(self.out / CHECKPOINT, error=OutputError):
            if self.options.resume == "never":
                raise OutputError(f"{self.out}: holds a training; resume it with --resume, or choose another folder")
            restore_state(self.state, self.identity, self.out)
        elif self.writes:
            self._refuse_foreign()
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{self.out}: cannot be made ({error.strerror}); choose another folder") from error
            remove_partial(self.out / CHECKPOINT)
        if self.processes.world > 1:
            dist.barrier()  # no process looks for the checkpoint once the first one writes

    def _refuse_foreign(self) -> None:
        """Refuses a folder whose files a training would replace, though none of its checkpoints is there."""
        log = self.out / LOG
        begun = is_file(log) and (read_log(self.out) or not size_of(log))  # by one that was stopped early
        for name in (MODEL, RECORD, *([] if begun else [LOG])):
            if exists(self.out / name, error=OutputError):
                raise OutputError(
                    f"{self.out / name}: exists and is of no training that goes on; choose another folder"
                )

    def _say_start(self) -> None:
        begins = f"goes on after step {self.state.step}" if self.state.step else "no checkpoint yet, begins anew"
        print(f"{self.out}: {begins}", file=sys.stderr)

    def _stages(self, log: TrainingLog | None) -> None:
        begin = 0
        for stage in self.recipe.stages:
            end = begin + stage.steps
            if self.state.step < end:
                self._stage(stage, begin, end, log)
            begin = end

    def _stage(self, stage: Stage, begin: int, end: int, log: TrainingLog | None) -> None:
        state, every = self.state, self.options.checkpoint_every
        set_learning(state.learner, self.recipe, stage)
        learner = wrapped(state.learner, self.processes)
        for batch in self._batches(stage, state.step, end):
            values = self._step(learner, batch, stage, state.step - begin)
            state.step += 1
            if log is None:
                continue
            log.step({name: values[name] for name in ("loss", "rate", "cosine") if name in values})
            if state.step % self.options.log_every == 0 or state.step == self.recipe.steps:
                log.row(state.step, {"stage": stage.name} | values, images=stage.batch)
            if state.step % every == 0 or state.step == self.recipe.steps:
                save_state(state, self.identity, self.out)
            if self.options.evaluate_every and state.step % self.options.evaluate_every == 0:
                self._evaluate(log)

    def _batches(self, stage: Stage, begin: int, end: int) -> Iterator[TrainingBatch]:
        """The batches of some steps in order, made ahead by worker processes if there are any."""
        data = _Steps(self.stream, stage.batch, self.processes.rank, self.processes.world)
        for batch in DataLoader(
            data,
            batch_size=None,
            sampler=range(begin, end),
            num_workers=self.options.workers,
            collate_fn=_as_it_is,
            prefetch_factor=4 if self.options.workers else None,
        ):
            if isinstance(batch, PcasegError):
                raise batch
            yield batch

    def _step(self, learner: nn.Module, batch: TrainingBatch, stage: Stage, step: int) -> dict[str, float]:
        """One step of the optimiser; returns what the log shows of it."""
        state, device = self.state, self.processes.device
        rate = set_rate(state.optimizer, stage, step)
        reduced = self.identity.precision != "float32"
        with torch.autocast(device.type, dtype=getattr(torch, self.identity.precision), enabled=reduced):
            losses = learner(*learner_inputs(batch, device), stage)
        values = mean_over_processes(losses, self.processes)
        self._check_finite(values["loss"], "loss")
        state.optimizer.zero_grad()
        state.scaler.scale(losses["loss"]).backward()
        state.scaler.unscale_(state.optimizer)
        for held in self.held:
            held.drop_gradient()
        learning = [p for group in state.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(learning, self.recipe.clip_norm))
        if not state.scaler.is_enabled():  # float16 leaves such a step out and lowers its scale
            self._check_finite(norm, "gradient")
        state.scaler.step(state.optimizer)
        state.scaler.update()
        for held in self.held:
            held.restore()
        self._follow_average()
        if "fod" in values:
            values["cosine"] = math.sqrt(values["fod"])
        return values | {"rate": rate, "gradient_norm": norm}

    def _check_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"{self.out}: the {what} of step {self.state.step + 1} is {value}; the last checkpoint is intact: "
                "lower the rate, or start anew with another seed"
            )

    @torch.no_grad()
    def _follow_average(self) -> None:
        """Moves the running average; early steps weigh it less, so that the start is soon forgotten."""
        if not self.state.average:
            return
        done = self.state.step
        weight = 1 - min(self.recipe.average, (1 + done) / (10 + done))
        live = self.model.state_dict()
        names = list(self.state.average)
        torch._foreach_lerp_([self.state.average[name] for name in names], [live[name] for name in names], weight)

    def _evaluate(self, log: TrainingLog) -> None:
        if self.evaluate is None:
            return
        live = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.state.average, strict=False)
        figures = self.evaluate(self.model.eval())
        self.model.load_state_dict(live)
        self.model.train()
        log.row(self.state.step, {f"evaluation/{name}": value for name, value in figures.items()})

    def _finish(self, log: TrainingLog) -> None:
        """Writes the weights: the running average, or the last ones."""
        begin, every = time.perf_counter(), self.options.evaluate_every
        if every and self.state.step % every:  # else the last step did
            self._evaluate(log)
        self.model.load_state_dict(self.state.average, strict=False)
        self.model.cpu().eval()
        self.model.source = WeightsSource("checkpoint", None, tensors_sha256(self.model.state_dict()), None)
        save_model(self.model, self.out / MODEL, storage=self.options.storage)
        log.row(self.state.step, {FINISH: time.perf_counter() - begin})


@dataclass(frozen=True)
class _Steps(Dataset["TrainingBatch | PcasegError"]):
    """A stream as a data set whose items are the batches of one process.

    A batch that cannot be made is the error that says why: raised in a worker, it would arrive with a traceback in it.
    """

    stream: TrainingStream
    size: int
    rank: int
    world: int

    def __getitem__(self, step: int) -> TrainingBatch | PcasegError:
        try:
            return self.stream.batch(step, size=self.size, rank=self.rank, world=self.world)
        except PcasegError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch
