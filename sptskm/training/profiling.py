"""A trace of some steps by PyTorch's profiler, for chrome://tracing and Perfetto."""

import logging
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

log = logging.getLogger(__name__)

SKIPPED, WARM_UP = 2, 3  # steps before the trace: the first ones allocate memory and choose kernels
TRACE = "trace.json"


class Profile:
    """Trace `steps` steps of this process into `folder`/trace.json; with 0 steps nothing is traced."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.left = SKIPPED + WARM_UP + steps if steps else 0
        self.profiler: profile | None = None
        if not steps:
            return
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self.path = folder / TRACE
        self.profiler = profile(
            activities=activities,
            schedule=schedule(wait=SKIPPED, warmup=WARM_UP, active=steps, repeat=1),
            on_trace_ready=self._write,
        )
        self.profiler.start()

    def step(self) -> None:
        """Count a step that is done, and end the profiler after the last one that is traced."""
        if self.profiler is not None:
            self.profiler.step()
            self.left -= 1
            if not self.left:
                self.close()

    def close(self) -> None:
        """End the profiler where training ends before all steps are traced."""
        profiler, self.profiler = self.profiler, None
        if profiler is not None:
            profiler.stop()

    def _write(self, profiler: profile) -> None:
        profiler.export_chrome_trace(str(self.path))
        log.info("profile of the steps: %s", self.path)
