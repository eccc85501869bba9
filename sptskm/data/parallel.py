"""Run one task on many items in several processes."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import cv2

from sptskm.common.processes import Pool

Item = TypeVar("Item")
Found = TypeVar("Found")

_task: list[Callable[[Any], Any]] = []  # the task that a worker process was started with


def in_parallel(
    task: Callable[[Item], Found], items: Sequence[Item], workers: int | None, chunk: int = 1
) -> Iterator[Found]:
    """Yield the result of `task` for each item, in order; `chunk` items at a time go to a process.

    There are `workers` processes (None: one per core), each with one thread. With one worker the task runs in this
    process. The first error is raised here, and no further item is started.
    """
    workers = min(workers or cores(), len(items))
    if workers <= 1:
        yield from map(task, items)
        return
    with ProcessPoolExecutor(workers, Pool(), _start_worker, (task,)) as pool:
        yield from pool.map(_run_in_worker, items, chunksize=chunk)


def cores() -> int:
    """Return the number of cores that this process may use, which a container or a scheduler may limit."""
    affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1


def _start_worker(task: Callable[[Any], Any]) -> None:
    cv2.setNumThreads(1)
    _task.append(task)


def _run_in_worker(item: Any) -> Any:
    return _task[-1](item)
