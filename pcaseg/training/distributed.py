"""Several processes as one: started by torchrun, gradients averaged, BatchNorm's statistics shared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from pcaseg.errors import PcasegError


@dataclass(frozen=True)
class Processes:
    """Place of this process among all; `device` is its own."""

    rank: int
    world: int
    device: torch.device


@contextmanager
def joined_processes(device: str | None) -> Iterator[Processes]:
    """Joins the processes that torchrun started, by NCCL on GPUs and gloo on CPUs; without torchrun there is one.

    Args:
        device: `cpu`, `cuda` or `cuda:N`; None takes a GPU where there is one.

    Raises:
        PcasegError: there is no such device.
    """
    chosen = _device(device)
    if not dist.is_torchelastic_launched():
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", dist.get_node_local_rank())
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


def _device(name: str | None) -> torch.device:
    gpu = torch.cuda.is_available()
    try:
        device = torch.device(name or ("cuda" if gpu else "cpu"))
    except RuntimeError as error:
        raise PcasegError(f"device={name!r}: no such device; give cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise PcasegError(f"device={name!r}: training runs on cpu, cuda or cuda:N; give one of them")
    if device.type == "cuda" and (not gpu or (device.index or 0) >= torch.cuda.device_count()):
        raise PcasegError(f"device={name!r}: PyTorch finds {torch.cuda.device_count()} GPUs here; give another or cpu")
    return device


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose statistics in training are those of all processes' batches together.

    PyTorch's own `SyncBatchNorm` refuses tensors on the CPU; this one serves CPUs and GPUs alike, so that the test on
    CPUs holds for both. Mean and variance are two differentiable sums over the processes, which see batches of one
    size. Names and shapes of its state are BatchNorm2d's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float -> the same shape."""
        if not self.training:
            return super().forward(x)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean = all_reduce(wide.sum(dim=(0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = all_reduce(centred.square().sum(dim=(0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics as BatchNorm2d does."""
        assert self.momentum is not None and self.num_batches_tracked is not None
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            assert running is not None
            running.lerp_(value.to(running), self.momentum)
        self.num_batches_tracked += 1


def share_batch_norm(module: nn.Module) -> None:
    """Makes every BatchNorm2d below `module` a `SharedBatchNorm`, its parameters and buffers untouched."""
    for one in module.modules():
        if type(one) is nn.BatchNorm2d:
            one.__class__ = SharedBatchNorm


def wrapped(learner: nn.Module, processes: Processes) -> nn.Module:
    """The learner whose gradients are averaged over the processes; itself where there is one process."""
    if processes.world == 1:
        return learner
    ids = None if processes.device.type == "cpu" else [processes.device]
    return DistributedDataParallel(learner, device_ids=ids, broadcast_buffers=False)


def mean_over_processes(values: dict[str, Tensor], processes: Processes) -> dict[str, float]:
    """The mean of each value over the processes, the same in all of them."""
    flat = torch.stack([value.detach().float() for value in values.values()])
    if processes.world > 1:
        dist.all_reduce(flat)
    return dict(zip(values, (flat / processes.world).tolist(), strict=True))
