"""PyTorch's data loader for training and extraction, with workers that ignore signals and end with the iterator."""

from collections.abc import Callable, Generator, Iterable
from typing import Any

import cv2
from torch.utils.data import DataLoader, Dataset

from sptskm.common.processes import Loaders


def loaded(
    data: Dataset[Any],
    order: Iterable[Any],
    workers: int,
    pinned: bool,
    batch: int | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
) -> Generator[Any, None, None]:
    """Yield the items of `data` for `order`, in that order, or batches of them; `workers` processes read ahead.

    The processes end with the iterator: when it is exhausted, closed or garbage collected.
    """
    loader = DataLoader(
        data,
        batch_size=batch,
        sampler=order,
        num_workers=workers,
        pin_memory=pinned,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        multiprocessing_context=Loaders() if workers else None,
    )
    batches = iter(loader)
    try:
        yield from batches
    finally:
        if workers:  # now, even if the traceback of an error keeps the iterator alive
            batches._shutdown_workers()  # type: ignore[attr-defined]


def _start_worker(_worker: int) -> None:
    cv2.setNumThreads(0)
