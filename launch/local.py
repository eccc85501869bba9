"""Train on this machine and evaluate, without a scheduler: the same jobs that a cluster runs.

python launch/local.py --stream both --config configs/demo
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.plan import Plan, make_plan, parser
from sptskm.cli import EXIT_BAD_INPUT, EXIT_STOPPED
from sptskm.config import Config, Final, to_yaml


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plan of a command line; the exit code says how it ended (75: stopped, start again to continue)."""
    options = parser("Train on this machine and evaluate.")
    options.add_argument("--nproc", type=int, default=1, help="processes per stream (one GPU or CPU core each)")
    chosen = options.parse_args(arguments)
    try:
        plan = make_plan(chosen)
    except (ValueError, FileNotFoundError) as error:
        print(f"launch/local.py: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    with Children() as children:
        codes = children.run({c.stream: _sptskm(chosen.nproc, "train", request(c, c.run)) for c in plan.configs})
        if failed := {name: code for name, code in codes.items() if code}:
            return _explain(failed, plan)
        runs = [config.run for config in plan.configs]
        final = ["evaluate", *runs, "--out", str(plan.out), "--final", request(plan.final, plan.out)]
        # the streams ran side by side: their processes are free now
        code = children.run({"final": _sptskm(chosen.nproc * len(runs), *final)})["final"]
    if code == 0:
        print(f"\n{plan.farewell()}")
    return code


def _sptskm(nproc: int, *arguments: str) -> list[str]:
    """A command of sptskm in one process, or in several under torchrun."""
    if nproc == 1:
        return [sys.executable, "-m", "sptskm.cli", *arguments]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    return [*torchrun, "-m", "sptskm.cli", *arguments]


def request(settings: Config | Final, folder: str | Path) -> str:
    """The complete settings of a job as a file that its command reads."""
    path = Path(folder) / "requested.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_yaml(settings))
    return str(path)


class Children:
    """Processes started here; they end with this one, and a signal to this one asks them to stop."""

    def __init__(self) -> None:
        self.running: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> "Children":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.running.values():
            child.terminate()

    def run(self, commands: Mapping[str, Sequence[str]]) -> dict[str, int]:
        """Run commands side by side and wait; a single one has the terminal to itself."""
        alone = len(commands) == 1
        for name, command in commands.items():
            pipe = None if alone else subprocess.PIPE
            # its own session: a Ctrl-C reaches it once, through this process
            self.running[name] = subprocess.Popen(
                command,
                stdout=pipe,
                stderr=pipe and subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env={"OMP_NUM_THREADS": "1", **os.environ},  # torchrun would set it too, with a page of warnings
            )
        relays = [] if alone else [_relay(name, child) for name, child in self.running.items()]
        codes = {name: child.wait() for name, child in self.running.items()}
        for relay in relays:
            relay.join()
        self.running.clear()
        return codes

    def _ask_to_stop(self, _number: int, _frame: object) -> None:
        for child in self.running.values():
            child.send_signal(signal.SIGTERM)


def _relay(name: str, child: subprocess.Popen[str]) -> threading.Thread:
    """Pass a child's lines on as they come, so that two children do not mix within a line."""

    def copy() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            sys.stderr.write(line if name in line else f"{name}: {line}")

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def _explain(failed: Mapping[str, int], plan: Plan) -> int:
    """Say which streams did not finish; those that did are kept."""
    stopped = all(code == EXIT_STOPPED for code in failed.values())
    what = "stopped as asked" if stopped else f"failed ({', '.join(f'{n}: exit {c}' for n, c in failed.items())})"
    print(f"{' and '.join(failed)} {what}; the same command continues in {plan.folder}", file=sys.stderr)
    return EXIT_STOPPED if stopped else 1


if __name__ == "__main__":
    sys.exit(main())
