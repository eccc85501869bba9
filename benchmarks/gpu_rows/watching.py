"""Watch over the process that measures: what a row must not do to the others is undone from here, without PyTorch."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

AGAIN = 75
"""Exit status of a process whose device no longer answers; the row at fault is noted already."""
STARTS = 8
LOOK_SECONDS = 0.5


def watch(command: list[str], state: Path) -> int:
    """Run `command`, which measures rows and keeps them in `state`, and again without a row that ended it.

    Returns 0 when it has ended by itself, else the status of its last end. Asked to end, it ends the process as well.
    """
    with _leaving():
        return _watch(command, state)


def _watch(command: list[str], state: Path) -> int:
    state.unlink(missing_ok=True)
    status = 1
    for _ in range(STARTS):
        process = subprocess.Popen(command, start_new_session=True)
        try:
            reason = _end_of(process, state)
        except BaseException:  # Ctrl-C, and what `timeout` and a closed terminal send, reach this process alone
            _kill(process)
            raise
        status = process.returncode
        if status == 0:
            return 0
        if not _noted(state, reason) and status != AGAIN:
            break  # not in a row: it would end so again
        print(f"{reason}: going on with the next row in a new process", flush=True)
    return status if status > 0 else 1


@contextmanager
def _leaving() -> Iterator[None]:
    """Turn requests to end into SystemExit in this block."""

    def leave(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_of(process: "subprocess.Popen[bytes]", state: Path) -> str:
    """Wait for the end of the process, or end it when its row has had its time; return why it ended."""
    while process.poll() is None:
        time.sleep(LOOK_SECONDS)
        now = _read(state).get("now")
        if now and time.monotonic() > now["until"]:
            _kill(process)
            return f"stopped after {time.monotonic() - now['began']:.0f} s"
    status = process.returncode
    return f"the process ended by {signal.Signals(-status).name if status < 0 else f'exit status {status}'}"


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _noted(state: Path, reason: str) -> bool:
    """Give the rows that were being measured this reason; return whether there were any."""
    found = _read(state)
    now = found.pop("now", None)
    if not now:
        return False
    found["rows"] += [
        {"group": now["group"], "what": what, "value": None, "unit": "", "reason": reason} for what in now["whats"]
    ]
    state.write_text(json.dumps(found, indent=1))
    return True


def _read(state: Path) -> dict[str, Any]:
    return json.loads(state.read_text()) if state.exists() else {}
