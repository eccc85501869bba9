"""Test with odd and damaged files, kills, full disks and I/O errors that nothing is lost or silently wrong.

    python benchmarks/torture.py --seconds 600 --seed 0 --out torture.md
    python benchmarks/torture.py --only readers --files manifest boxes --inputs 500
    python benchmarks/torture.py --input "MARS names:6"

A small project is made, then harmed in four ways: its files one by one before every reader (in forked processes with
limits of memory and time), its commands by SIGKILL, by errors at the n-th call of reading or writing, and by a disk
without room. After kills and errors the same command is typed again and must leave what it leaves undisturbed. Inputs
depend on the seed alone; the seconds say how far the list is followed. The last lines name what went wrong and how to
see it again. Exit code 1 when anything did.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from faults import commands, io_errors, kills, project, readers
from faults.kills import Try

from sptskm.common.console import table

PARTS = ("readers", "kills", "errors", "full disk")
SHARES = {"readers": 0.4, "errors": 0.3, "kills": 0.2, "full disk": 0.1}  # of the seconds


def main() -> int:
    """Run the selected tests; return 1 when something was wrong."""
    options = _options()
    plan = os.environ.get(io_errors.VARIABLE)  # of this very program, before it was started again
    folder = Path(plan).parent if plan else Path(tempfile.mkdtemp(prefix="torture-"))
    why_not = io_errors.preload(folder)
    try:
        torch.set_num_threads(1)
        _import_all()
        home = project.make(folder / "project")
        if options.input:
            return _one(home, options)
        text, wrong = _all(home, folder / "work", options, why_not)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(text)
    if options.out:
        options.out.write_text(text)
    return int(wrong)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=600, help="of all parts together, but for the beginnings (default: 600)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--files", nargs="*", default=[], metavar="WORD", help="only kinds of files with such names")
    parser.add_argument("--commands", nargs="*", default=[], metavar="WORD", help="only such commands")
    parser.add_argument("--inputs", type=int, default=3300, help="files at most (default: 3300)")
    parser.add_argument("--kills", type=int, default=60, help="at most (default: 60)")
    parser.add_argument("--errors", type=int, default=220, help="at most (default: 220)")
    parser.add_argument("--disks", type=int, default=40, help="full disks at most (default: 40)")
    parser.add_argument("--input", metavar="KIND:NUMBER", help="show one input of the readers and what is said of it")
    parser.add_argument("--keep", type=Path, help="write the file of --input here")
    parser.add_argument("--out", type=Path, help="write the tables here as Markdown")
    return parser.parse_args()


def _import_all() -> None:
    """Import the modules of the commands once instead of in every forked process."""
    import sptskm.data.check
    import sptskm.export
    import sptskm.extraction
    import sptskm.final
    import sptskm.preparation.importing
    import sptskm.preparation.methods
    import sptskm.preparation.video
    import sptskm.score
    import sptskm.training.trainer  # noqa: F401


def _one(home: Path, options: argparse.Namespace) -> int:
    name, _, number = options.input.rpartition(":")
    subject = next(subject for subject in readers.SUBJECTS if subject.name == name)
    for found in readers.run(home, options.seed, [(subject, int(number))]):
        print(f"{found.mutation}: {found.what}\n{found.said}")
    if options.keep:
        with tempfile.TemporaryDirectory() as folder:
            healthy = subject.prepare(home, Path(folder)).read_bytes()
        options.keep.write_bytes(readers.mutated(subject, healthy, options.seed, int(number))[1])
    return 0


def _all(home: Path, work: Path, options: argparse.Namespace, why_not: str) -> tuple[str, int]:
    """Return the report, and the number of faults."""
    seconds = {part: options.seconds * SHARES[part] / sum(SHARES[p] for p in options.only) for part in options.only}
    texts, wrong = [], []
    if "readers" in options.only:
        found = list(_within(_inputs(home, options), seconds["readers"]))
        bad = [one for one in found if one.what not in readers.GOOD]
        texts.append(f"## Readers\n\n{_fenced(table(readers.HEADER, readers.rows(found)))}")
        wrong += [f"{one.subject}:{one.number} ({one.mutation}): {one.what}: {_last(one.said)}" for one in bad]
    for part in [part for part in ("kills", "errors", "full disk") if part in options.only]:
        if why_not and part != "kills":
            texts.append(f"## {part.capitalize()}\n\nnot tried: {why_not}")
            continue
        tries = list(_within(_tries(part, home, work, options), seconds[part]))
        texts.append(f"## {part.capitalize()}\n\n{_fenced(_tries_table(tries))}")
        wrong += [f"{one.command}, {one.disturbed}: {one.problem}: {_last(one.said)}" for one in tries if one.problem]
    told = "\n".join(f"- {line}" for line in wrong[:100]) or "nothing"
    return "\n\n".join([*texts, f"## What was wrong\n\n{told}"]) + "\n", len(wrong)


def _inputs(home: Path, options: argparse.Namespace) -> Iterator[readers.Found]:
    for cases in readers.turns(readers.chosen(options.files), options.inputs, 6):
        yield from readers.run(home, options.seed, cases)


def _tries(part: str, home: Path, work: Path, options: argparse.Namespace) -> Iterator[Try]:
    chosen = [c for c in commands.COMMANDS if not options.commands or any(word in c.name for word in options.commands)]
    if part == "kills":
        references = [_reference(c, home, work) for c in kills.killable(chosen)]
        yield from kills.run(references, home, work, options.seed, options.kills)
    else:
        references = [_reference(c, home, work) for c in chosen]
        full = part == "full disk"
        count = options.disks if full else options.errors
        yield from io_errors.run(references, (home, work), io_errors.Faults(work), options.seed, count, full)


@cache
def _reference(command: commands.Command, home: Path, work: Path) -> commands.Reference:
    return commands.reference(command, home, work)


def _within(things: Iterator[Any], seconds: float) -> Iterator[Any]:
    end = time.monotonic() + seconds
    for thing in things:
        yield thing
        if time.monotonic() > end:
            return


def _tries_table(tries: Sequence[Try]) -> str:
    counts: dict[str, Counter[str]] = {}
    for one in tries:
        what = (
            "not reached"
            if not one.hit and not one.problem
            else one.problem.split(":")[0].split(" ")[0] or "same result"
        )
        for name in (one.command, "all"):
            counts.setdefault(name, Counter())[what] += 1
    total = counts.pop("all", Counter())
    kinds = ["same result", "not reached", *sorted({*total} - {"same result", "not reached"})]
    lines = [
        [name, sum(count.values()), *(count[kind] for kind in kinds)]
        for name, count in [*counts.items(), ("all", total)]
    ]
    return table(["command", "tries", *kinds], lines)


def _fenced(text: str) -> str:
    return f"```\n{text}\n```"


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


if __name__ == "__main__":
    sys.exit(main())
