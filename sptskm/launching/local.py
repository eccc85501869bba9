"""Train on this machine and evaluate, without a scheduler: the same jobs that a cluster runs.

sptskm local --stream both --config configs/demo
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from sptskm.common.atomic import write_text
from sptskm.common.endings import EXIT_BAD_INPUT, EXIT_STOPPED, is_ours
from sptskm.common.processes import end_with
from sptskm.config import STREAMS, Config, ConfigError, Final
from sptskm.configfile import to_yaml
from sptskm.launching import earlier, estimates
from sptskm.launching.plan import Plan, check, make_folder, make_plan, parser, refused
from sptskm.provenance import tell_jobs

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plan of a command line and return the exit code (75: stopped, the same command continues)."""
    chosen = command_line().parse_intermixed_args(arguments)
    try:
        if chosen.nproc < 1:
            raise ConfigError(f"--nproc is {chosen.nproc}, wanted at least 1")
        plan = make_plan(chosen)
        estimates.check_rate(chosen, len(plan.configs))
        ranks = dict.fromkeys(STREAMS, chosen.nproc)
        check(plan, ranks)
        if chosen.estimate:
            print(estimates.estimate_text(plan, ranks, chosen))
            return 0
        gpus = visible_gpus()
        shares = share_gpus(gpus, chosen.nproc, len(plan.configs))
        earlier.refuse_queued(plan)
        earlier.refuse_other_runs(plan)
        make_folder(plan.folder)
        tell_jobs()
        for config in plan.runs.values():
            request(config, config.run)  # fails now if a folder cannot be written
        request(plan.final, plan.out)
    except (ValueError, OSError) as error:
        if not is_ours(error):
            raise
        return refused("local", error)
    # the streams ran side by side, their processes are free for the final job; two ranks cannot share a GPU
    everything = chosen.nproc * len(plan.configs)
    return run(plan, shares, chosen.nproc, min(everything, len(gpus)) or everything)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of `sptskm local`."""
    options = parser("Train on this machine and evaluate.")
    options.add_argument("--nproc", type=int, default=1, help="processes per stream (one GPU or CPU core each)")
    estimates.options(options)
    return options


def run(plan: Plan, shares: Sequence[Sequence[str]], nproc: int, nproc_final: int) -> int:
    """Train the streams side by side on their shares of the GPUs, then run the final job on all GPUs.

    Folds come before, one after another.
    """
    trainings, count = [*plan.runs.items()], len(plan.configs)
    with Children() as children:
        for side_by_side in (trainings[first : first + count] for first in range(0, len(trainings), count)):
            codes = children.run(
                {
                    name: _sptskm(nproc, share, "train", request(config, config.run))
                    for (name, config), share in zip(side_by_side, shares, strict=True)
                }
            )
            if children.asked or any(codes.values()):
                return _explain(codes, plan, children.asked)
        runs = [config.run for config in plan.configs]
        final = ["evaluate", *runs, "--out", str(plan.out), "--final", request(plan.final, plan.out)]
        codes = children.run({"final": _sptskm(nproc_final, (), *final)})
        if children.asked or any(codes.values()):
            return _explain(codes, plan, children.asked)
    print(f"\n{plan.tensorboard_command()}")
    return 0


def visible_gpus() -> list[str]:
    """Return the names of the usable GPUs, without asking CUDA.

    These are the entries of CUDA_VISIBLE_DEVICES, or all GPUs of the machine without that variable.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name not in ("", "-1")]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def share_gpus(gpus: Sequence[str], nproc: int, streams: int) -> list[Sequence[str]]:
    """Assign GPUs to each stream: separate ones if there are enough, otherwise the same for all streams.

    Without GPUs every stream gets none. Raises ConfigError for more processes than GPUs.
    """
    if gpus and len(gpus) < nproc:
        raise ConfigError(f"--nproc is {nproc}, but there are only {len(gpus)} GPUs; wanted one per process")
    if len(gpus) >= nproc * streams:
        return [gpus[index * nproc : (index + 1) * nproc] for index in range(streams)]
    return [gpus[:nproc]] * streams


def _sptskm(nproc: int, gpus: Sequence[str], *arguments: str) -> list[str]:
    """Return the command line for sptskm in one process, or in several under torchrun.

    It sees only `gpus`, if any are given.
    """
    environment = ["env", f"CUDA_VISIBLE_DEVICES={','.join(gpus)}"] if gpus else []
    if nproc == 1:
        return [*environment, sys.executable, "-m", "sptskm.cli", *arguments]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    return [*environment, *torchrun, "-m", "sptskm.cli", *arguments]


def request(settings: Config | Final, folder: str | Path) -> str:
    """Write the complete settings of a job to a file for its command, and return the path."""
    path = Path(folder) / "requested.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, to_yaml(settings))
    return str(path)


class Children:
    """Child processes: they end with this process, and a signal to it asks them to stop."""

    def __init__(self) -> None:
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.asked = False

    def __enter__(self) -> "Children":
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background job
                signal.signal(number, self._ask_to_stop)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.running.values():
            child.terminate()

    def run(self, commands: Mapping[str, Sequence[str]]) -> dict[str, int]:
        """Run commands side by side and wait; a single command writes directly to the terminal."""
        alone = len(commands) == 1
        for name, command in commands.items():
            pipe = None if alone else subprocess.PIPE
            # its own session: a Ctrl-C reaches it once, through this process
            self.running[name] = subprocess.Popen(
                command,
                stdout=pipe,
                stderr=pipe and subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=partial(end_with, os.getpid(), signal.SIGTERM),  # no training continues unseen
                env={"OMP_NUM_THREADS": "1", **os.environ},  # torchrun would set it as well, with a long warning
            )
        if self.asked:  # a stop request came while the children were starting
            self._ask_to_stop()
        relays = [] if alone else [_relay(name, child) for name, child in self.running.items()]
        codes = {name: child.wait() for name, child in self.running.items()}
        for relay in relays:
            relay.join()
        self.running.clear()
        return codes

    def _ask_to_stop(self, *_: object) -> None:
        self.asked = True
        for child in self.running.values():
            child.send_signal(signal.SIGTERM)


def _relay(name: str, child: subprocess.Popen[str]) -> threading.Thread:
    """Print a child's output line by line, so that the lines of two children do not mix."""

    def copy() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            sys.stderr.write(line if name in line else f"{name}: {line}")

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def _explain(codes: Mapping[str, int], plan: Plan, asked: bool) -> int:
    """Print which jobs did not finish and return the exit code; their work is kept."""
    failed = {name: code for name, code in codes.items() if code} or codes
    # torchrun, and a process that is asked before its handlers are installed, end with other codes
    stopped = asked or all(code == EXIT_STOPPED for code in failed.values())
    what = "stopped as asked" if stopped else f"failed ({', '.join(f'{n}: exit {c}' for n, c in failed.items())})"
    told = not stopped and EXIT_BAD_INPUT in failed.values()  # the job has printed what to change
    after = "" if told else f"; the same command continues in {plan.folder}"
    print(f"{' and '.join(failed)} {what}{after}", file=sys.stderr)
    return EXIT_STOPPED if stopped else 1
