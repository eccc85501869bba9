"""Average losses and speed over an epoch and between points in TensorBoard."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class _Window:
    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps = self.clips = 0
        self.waited = 0.0
        self.began = time.monotonic()

    def means(self) -> dict[str, float]:
        return {name: value / max(1, self.steps) for name, value in self.sums.items()}

    def speed(self) -> tuple[float, float]:
        """Return clips per second and the share of time spent waiting for data."""
        elapsed = max(1e-9, time.monotonic() - self.began)
        return self.clips / elapsed, self.waited / elapsed


class Meters:
    """Means of the loss terms, clips per second and waiting for data, over an epoch and since the last point.

    `steps` is the number of steps of a whole epoch; a run that continues within an epoch measures the rest of it.
    `rate` is the learning rate.
    """

    def __init__(self, steps: int, rate: float) -> None:
        self.steps, self.rate = steps, rate
        self.epoch, self.recent = _Window(), _Window()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside the block as waiting for data."""
        began = time.monotonic()
        yield
        waited = time.monotonic() - began
        self.epoch.waited += waited
        self.recent.waited += waited

    def add(self, terms: Mapping[str, float], clips: int) -> None:
        """Add one step of `clips` clips over all ranks."""
        for window in (self.epoch, self.recent):
            window.steps += 1
            window.clips += clips
            for name, value in terms.items():
                window.sums[name] = window.sums.get(name, 0.0) + value

    def point(self, gradient_norm: float) -> dict[str, float]:
        """Return TensorBoard's scalars since the last point and start anew."""
        speed, waiting = self.recent.speed()
        losses = {f"loss/{name}": value for name, value in self.recent.means().items()}
        self.recent = _Window()
        return {
            **losses,
            "optim/learning rate": self.rate,
            "optim/gradient norm": gradient_norm,
            "speed/clips per s": speed,
            "speed/data wait share": waiting,
        }

    def summary(self) -> str:
        """Summarise the epoch in a few words."""
        speed, waiting = self.epoch.speed()
        losses = "  ".join(f"{name} {value:.3f}" for name, value in self.epoch.means().items())
        part = "" if self.epoch.steps == self.steps else f" (of the last {self.epoch.steps} of {self.steps} steps)"
        return f"{losses}{part}  {speed:.0f} clips/s, {waiting:.0%} waiting"
