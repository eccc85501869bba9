"""Kill every command by SIGKILL at random times, and run the same command again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faults.commands import Command, Reference, fresh, typed


@dataclass(frozen=True)
class Try:
    """Result of a disturbed command and of its undisturbed repetition."""

    command: str
    number: int
    disturbed: str
    """The disturbance, in words."""
    hit: bool
    """Whether the disturbance took effect before the command ended."""
    problem: str
    """The fault found; empty if none."""
    said: str = ""


def kill(reference: Reference, project: Path, work: Path, seed: int, number: int) -> Try:
    """Kill once: the whole group, as when a node dies, or the first process, as when the kernel is out of memory."""
    command = reference.command
    rng = np.random.default_rng([seed, number, 1])
    after, whole = float(rng.uniform(0, 1.05 * reference.seconds)), bool(rng.integers(2))
    ended = typed(command, fresh(command, project, work), after, whole)
    how = f"SIGKILL of {'all its processes' if whole else 'its first process'} after {after:.2f} s"
    tried = Try(command.name, number, how, ended.code is None, "")
    return again(reference, work, tried) if tried.hit else tried


def again(reference: Reference, work: Path, before: Try) -> Try:
    """Run the same command undisturbed on the files that the disturbance has left."""
    ended = typed(reference.command, work)
    if ended.code is None:
        problem = "hangs when typed again"
    elif ended.traceback:
        problem = "traceback when typed again"
    elif (problem := reference.difference(work)) and ended.code:
        problem = f"refused when typed again: {problem}"  # some commands refuse what is there as a whole already
    return Try(before.command, before.number, before.disturbed, before.hit, problem, ended.said[-3000:])


def run(references: Sequence[Reference], project: Path, work: Path, seed: int, count: int) -> Iterator[Try]:
    """Do `count` kills, in turns over the commands."""
    for number in range(count):
        yield kill(references[number % len(references)], project, work, seed, number)


def killable(commands: Sequence[Command]) -> list[Command]:
    """Return the commands that write files."""
    return [command for command in commands if command.name not in ("score", "search", "summary", "compare")]
