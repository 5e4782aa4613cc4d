"""Work on many items by a pool of Ray's actors: each item once, though workers die."""

from __future__ import annotations

import importlib.util
import json
import logging
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pcaseg.errors import MissingDependencyError, PcasegError, install_hint, one_line

Work = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""An item to its outcome; both hold JSON's types alone. What it raises as `PcasegError` ends the run."""

Outcome = tuple[int, dict[str, Any]]
"""The index of an item, and what became of it."""

LOCAL = "local"

_SLICE = 100_000
"""Items of one pipeline: what the driver holds of a run does not grow with it."""

_BLOCK = 8
"""Items that a worker takes at a time, and does again where it dies, except for those whose outputs stand by then."""

_RETRIES = 3
_ANSWER_S = 10


@dataclass(frozen=True)
class RayPool:
    """Workers of a cluster.

    Attributes:
        address: of a cluster, such as `auto` or `head:6379`; `local` starts Ray on this machine.
        workers: actors; None for one for each of the cluster's CPUs, shared by threads.
        threads: CPUs of each worker.
    """

    address: str
    workers: int | None = None
    threads: int = 1

    def run(self, opener: Callable[[], Work], items: Sequence[Mapping[str, Any]]) -> Iterator[Outcome]:
        """Outcomes with the items' indices, as they come. An item that kills its workers has `{"died": True}`.

        Args:
            opener: called once in each worker; pickled.
            items: the work.

        Raises:
            PcasegError: the cluster cannot be reached, or a worker says that no other item would fare better.
            MissingDependencyError: Ray is not installed.
        """
        if not items:
            return
        with _ray(self) as ray:
            workers = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // self.threads)
            for start in range(0, len(items), _SLICE):
                numbered = dict(enumerate(items[start : start + _SLICE], start))
                yield from self._pass(ray, opener, numbered, workers, _BLOCK)
                if numbered:  # blocks that were lost: each item by itself, so that one does not take others along
                    yield from self._pass(ray, opener, numbered, workers, 1)
                yield from ((index, {"died": True}) for index in numbered)

    def _pass(
        self, ray: Any, opener: Callable[[], Work], left: dict[int, Mapping[str, Any]], workers: int, block: int
    ) -> Iterator[Outcome]:
        """Outcomes of what is left, taken out of it; what stays killed its workers."""
        rows = [{"index": index, "item": json.dumps(item)} for index, item in left.items()]
        blocks = max(1, -(-len(rows) // block))
        pipeline = ray.data.from_items(rows, override_num_blocks=blocks).map(
            _Worker,
            fn_constructor_args=(opener,),
            compute=ray.data.ActorPoolStrategy(
                size=min(workers, blocks), max_tasks_in_flight_per_actor=1 if block == 1 else None
            ),
            num_cpus=self.threads,
            max_restarts=-1,
            max_task_retries=_RETRIES,
        )
        for row in pipeline.iter_rows():
            outcome = json.loads(row["outcome"])
            if "ends" in outcome:
                raise PcasegError(outcome["ends"])
            if left.pop(row["index"], None) is not None:
                yield row["index"], outcome


def died(name: object) -> str:
    """Sentence about an item that ended each worker that had it."""
    return f"{name}: ends each process that works on it, perhaps for lack of memory; reduce it, or give more memory"


class _Worker:
    """One actor: opens once, then works item by item."""

    def __init__(self, opener: Callable[[], Work]) -> None:
        self._ends, self._work = "", None
        try:
            self._work = opener()
        except PcasegError as error:
            self._ends = str(error)
        except Exception as error:  # ImportError and its kin: the worker's machine is not as the driver's
            self._ends = (
                f"a worker cannot start ({type(error).__name__}: {one_line(error)}); install there what is here"
            )

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        outcome: Mapping[str, Any] = {"ends": self._ends}
        if self._work is not None:
            try:
                outcome = self._work(json.loads(row["item"]))
            except PcasegError as error:
                outcome = {"ends": str(error)}
        return {"index": row["index"], "outcome": json.dumps(outcome)}


def check_ray(address: str) -> None:
    """Refuses to begin without Ray, or with an address of another kind.

    Raises:
        PcasegError: the address is of Ray's client.
        MissingDependencyError: Ray is not installed.
    """
    if address.startswith("ray://"):
        raise PcasegError(
            f"--ray {address}: is for Ray's client, through which Ray Data does not run; give --ray auto, on a machine "
            "of the cluster"
        )
    try:
        found = all(importlib.util.find_spec(name) is not None for name in ("ray", "pyarrow"))
    except ValueError:  # a module that is barred
        found = False
    if not found:
        raise MissingDependencyError(f"--ray: Ray Data is not installed; {install_hint('ray')}")


@contextmanager
def _ray(pool: RayPool) -> Iterator[Any]:
    """Ray, connected, with its own bars and messages off.

    Raises:
        PcasegError: it cannot be reached, or fails.
        MissingDependencyError: it is not installed.
    """
    check_ray(pool.address)
    import ray
    import ray.data
    import ray.util.annotations

    warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)
    options: dict[str, Any] = {"address": pool.address}
    if pool.address == LOCAL:
        cpus = pool.workers and pool.workers * pool.threads
        options |= {"num_cpus": cpus, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        host, colon, port = pool.address.rpartition(":")
        if colon and port.isdecimal():  # Ray itself would wait for minutes
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError...
        raise PcasegError(
            f"--ray {pool.address}: cannot be reached ({one_line(error)}); run ray start --head there, or give local"
        ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # lost workers are told as outcomes
    try:
        yield ray
    except ray.exceptions.RayError as error:
        raise PcasegError(f"--ray {pool.address}: failed ({one_line(error)}); start again, it goes on") from error
    finally:
        ray.shutdown()
