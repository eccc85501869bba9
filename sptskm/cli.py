"""The command line `sptskm`: single steps, each usable alone, and the launchers."""

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sptskm import __version__, config_command
from sptskm import feature_commands as features
from sptskm.common.console import set_up_logging
from sptskm.common.endings import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    EXIT_UNREACHABLE,
    Stopped,
    Unreachable,
    is_ours,
    sentence,
    until_nobody_reads,
)
from sptskm.config import ConfigError, Final
from sptskm.configfile import apply_final, find_file, load, load_final
from sptskm.data import read_any, read_dataset
from sptskm.data.importers import command as importers
from sptskm.launching import estimates
from sptskm.preparation import command as preparation
from sptskm.preparation import weights_cache
from sptskm.synthetic import DEMO, Sizes, write_dataset
from sptskm.training.allocation import enter_step, number_of
from sptskm.training.signals import ignore_stopping, stop_flag

LAUNCHERS = {
    "local": "train and evaluate on this machine",
    "slurm": "train and evaluate on a SLURM cluster",
    "tune": "search for settings, train and evaluate in Ray",
}
"""Commands with a module of their own in `sptskm.launching`, which alone knows their options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a mistake of the user is one line, not a traceback."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] and words[0] in LAUNCHERS:
        sys.argv[0] = f"sptskm {words[0]}"  # as which its help speaks
        launcher = importlib.import_module(f"sptskm.launching.{words[0]}")
        return until_nobody_reads(lambda: int(launcher.main(words[1:])))
    return until_nobody_reads(lambda: _run(_parsed(words)))


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    if words[:1] != ["config"]:
        return _parser().parse_args(words)
    alone = config_command.parser()  # whose options may stand between its other words
    alone.set_defaults(command=_config)
    return alone.parse_intermixed_args(words[1:])


def _run(options: argparse.Namespace) -> int:
    try:
        set_up_logging(number_of("RANK") or 0)
        code = options.command(options) or 0
    except (ValueError, OSError) as error:
        if not is_ours(error):
            raise
        print(f"sptskm: {sentence(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Stopped:
        code = EXIT_STOPPED
    except Unreachable as error:
        print(f"sptskm: {error}; the same command continues", file=sys.stderr)
        return EXIT_UNREACHABLE
    except KeyboardInterrupt:
        print("sptskm: stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    if code == EXIT_STOPPED:
        ignore_stopping()  # whatever else is sent has been answered already
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sptskm", description="Long-term person re-ID from walking tracklets.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    _synth_options(commands.add_parser("synth", help="write a generated data set in the MARS layout"))
    _import_options(commands.add_parser("import", help="write a manifest of a public data set, or of a folder"))

    _check_options(commands.add_parser("check", help="find missing and broken files of a data set, or of ranks"))

    commands.add_parser("config", help="print a configuration, and what every key means", add_help=False)

    _prepare_options(commands)

    _pack_options(commands)

    train = commands.add_parser("train", help="train one stream, or continue it (also under torchrun)")
    train.add_argument("file", type=Path)
    train.add_argument("overrides", nargs="*", metavar="section.key=value")
    estimates.options(train)
    train.set_defaults(command=_train)

    evaluate = commands.add_parser("evaluate", help="extract, fuse and report trained runs, one a stream")
    evaluate.add_argument("runs", nargs="*", type=Path, metavar="run")
    evaluate.add_argument("--out", type=Path, help="folder for the results")
    evaluate.add_argument("--explain", type=Path, metavar="DATA", help="only say what a protocol counts on a data set")
    evaluate.add_argument("--protocol", help="name, or a .yaml file with rules of one's own (as --set protocol=...)")
    evaluate.add_argument("--final", type=Path, help="file with settings of the final job (default: the defaults)")
    evaluate.add_argument(
        "--set", nargs="*", default=[], metavar="key=value", dest="settings", help="of the final job, e.g. rerank=true"
    )
    evaluate.add_argument("--overrides", nargs="*", default=[], metavar="section.key=value")
    evaluate.set_defaults(command=_evaluate)

    features.options(commands)

    for name, purpose in LAUNCHERS.items():
        commands.add_parser(name, help=purpose, add_help=False)

    compare = commands.add_parser("compare", help="two evaluations of the same queries: which is better, and how sure")
    compare.add_argument("a", metavar="FOLDER[:STREAM]", help="folder of an evaluation; a ranking of it")
    compare.add_argument("b", metavar="FOLDER[:STREAM]")
    compare.set_defaults(command=_compare)

    summary = commands.add_parser("summary", help="mean and standard deviation over evaluations, as of several seeds")
    summary.add_argument("folders", nargs="+", type=Path, metavar="folder")
    summary.set_defaults(command=_summary)
    return parser


def _pack_options(commands: Any) -> None:
    pack = commands.add_parser("pack", help="put a data set's files into a few hundred large ones, or check these")
    pack.add_argument("data", type=Path, help="folder in the MARS layout, or a manifest; with --verify a pack")
    pack.add_argument("out", type=Path, nargs="?", help="folder of the pack; the same command continues one")
    pack.add_argument("--frames", type=int, default=20_000, help="frames in a zip file (default: 20000)")
    pack.add_argument("--workers", type=int, help="processes (default: all cores)")
    pack.add_argument("--verify", action="store_true", help="compare the checksums of all files of a pack")
    pack.set_defaults(command=_pack)
    unpack = commands.add_parser("unpack", help="write the files of a pack again")
    unpack.add_argument("pack", type=Path)
    unpack.add_argument("out", type=Path)
    unpack.set_defaults(command=_unpack)


def _prepare_options(commands: Any) -> None:
    prepare = commands.add_parser("prepare", help="make masks or skeletons from frames, or what is missing of them")
    preparation.options(prepare)
    prepare.set_defaults(command=_prepare)
    weights = commands.add_parser("weights", help="fetch the weights that make masks and skeletons")
    weights_cache.options(weights)
    weights.set_defaults(command=_weights)


def _synth_options(synth: argparse.ArgumentParser) -> None:
    synth.add_argument("folder", type=Path)
    synth.add_argument("--seed", type=int, default=0)
    synth.add_argument("--workers", type=int, help="processes (default: all cores)")
    synth.add_argument(
        "--no-scale", action="store_true", help="skeletons of one size, as an estimator without scale gives"
    )
    for field in dataclasses.fields(DEMO):
        default = getattr(DEMO, field.name)
        pair: dict[str, Any] = {"nargs": 2, "metavar": ("MIN", "MAX")} if isinstance(default, tuple) else {}
        option = f"--{field.name.replace('_', '-')}"
        synth.add_argument(option, type=int, default=default, help=f"(default: {default})", **pair)
    synth.set_defaults(command=_synth)


def _synth(options: argparse.Namespace) -> None:
    chosen: dict[str, Any] = {field.name: getattr(options, field.name) for field in dataclasses.fields(Sizes)}
    write_dataset(options.folder, Sizes(**chosen), options.seed, options.workers, sized=not options.no_scale)


def _import_options(parser: argparse.ArgumentParser) -> None:
    importers.options(parser)
    parser.set_defaults(command=_import)


def _import(options: argparse.Namespace) -> None:
    print(importers.run(options))


def _check_options(check: argparse.ArgumentParser) -> None:
    check.add_argument("folder", type=Path, nargs="?")
    check.add_argument("--dist", action="store_true", help="let the ranks of an allocation meet (below srun, torchrun)")
    check.add_argument("--quick", action="store_true", help="only look whether files exist")
    check.add_argument("--workers", type=int, help="processes (default: all cores)")
    check.add_argument("--quality", action="store_true", help="measure masks and skeletons instead, show the worst")
    check.add_argument("--tracklets", type=int, default=0, help="so many, drawn at random (default: all)")
    check.add_argument(
        "--drop-bad", type=Path, metavar="MANIFEST", help="with --quality: write one without tracklets of no use"
    )
    check.add_argument("--out", type=Path, help="for the pictures of --quality (default: in the data set)")
    check.set_defaults(command=_check)


def _check(options: argparse.Namespace) -> int:
    if (options.folder is None) != options.dist:
        raise ConfigError("check wants either the folder of a data set or --dist")
    if options.dist:
        return _check_ranks()
    if options.drop_bad is not None and not options.quality:
        raise ConfigError("--drop-bad was given without --quality, which measures what is bad")
    if options.quality:
        return _check_quality(options)
    from sptskm.data.check import check_dataset

    report = check_dataset(options.folder, decode=not options.quick, workers=options.workers)
    print(report.text())
    return 0 if report.ok else EXIT_BAD_INPUT


def _check_quality(options: argparse.Namespace) -> int:
    from sptskm.data.derived import HOME
    from sptskm.preparation.inspection import Kept, inspect

    folder = options.folder if options.folder.is_dir() else options.folder.parent
    out = options.out or folder / HOME / "quality"
    kept = None if options.drop_bad is None else Kept(options.folder, options.drop_bad)
    print(inspect(read_any(options.folder), out, options.tracklets, kept=kept))
    return 0


def _check_ranks() -> int:
    from sptskm.training.rank_check import inspect_ranks

    enter_step()
    if text := inspect_ranks():
        print(text)
    return 0


def _pack(options: argparse.Namespace) -> int:
    from sptskm.data.packs.writing import pack, verify_pack

    if options.verify != (options.out is None):
        raise ConfigError("pack wants a data set and a folder to write to, or one pack and --verify")
    if not options.verify:
        print(pack(read_dataset(options.data), options.out, options.frames, options.workers))
        return 0
    problems = verify_pack(options.data, options.workers)
    print("\n".join(problems) or f"{options.data}: every file is as it was written")
    return EXIT_BAD_INPUT if problems else 0


def _unpack(options: argparse.Namespace) -> None:
    from sptskm.data.packs.unpacking import unpack

    print(f"unpacked; data.root is {unpack(options.pack, options.out)} now")


def _prepare(options: argparse.Namespace) -> int:
    complete, text = preparation.run(options)
    print(text)
    return 0 if complete else EXIT_BAD_INPUT


def _weights(options: argparse.Namespace) -> None:
    print(weights_cache.run(options))


def _config(options: argparse.Namespace) -> None:
    print(config_command.run(options), end="")


def _train(options: argparse.Namespace) -> int:
    if options.estimate or options.rate or options.measure:
        print(estimates.of_one(load(find_file(options.file), options.overrides), options))
        return 0
    from sptskm.training.trainer import train

    enter_step()
    return 0 if train(load(find_file(options.file), options.overrides)).finished else EXIT_STOPPED


def _compare(options: argparse.Namespace) -> None:
    from sptskm.report.comparison import compare

    print(compare(options.a, options.b))


def _summary(options: argparse.Namespace) -> None:
    from sptskm.report.comparison import summary

    print(summary(options.folders))


def _final_settings(options: argparse.Namespace) -> Final:
    changes = [setting.removeprefix("final.") for setting in options.settings]  # as the launchers spell them
    if options.final is not None and not options.final.is_file():
        raise FileNotFoundError(f"{options.final}: no such file")
    found = apply_final(Final(), changes) if options.final is None else load_final(options.final, changes)
    return found if options.protocol is None else dataclasses.replace(found, protocol=options.protocol)


def _explained(data: Path, name: str) -> str:
    from sptskm.common.console import table as text_table
    from sptskm.evaluation import Rows, explain_protocol, protocol

    rules, table = protocol(name), read_dataset(data)
    found = explain_protocol(rules, Rows.of(table, table.test), table.lengths[table.test], table.query)
    return f"{text_table(*found.counts())}\n\n{text_table(*found.cameras())}"


def _evaluate(options: argparse.Namespace) -> None:
    settings = _final_settings(options)
    if (options.explain is None) != bool(options.runs) or (options.explain is None) != bool(options.out):
        raise ConfigError("evaluate wants runs and --out, or --explain with a data set")
    if options.explain is not None:
        print(_explained(options.explain, settings.protocol))
        return
    from sptskm.final import final

    enter_step()
    with stop_flag() as stop:
        results = final(options.runs, options.out, settings, options.overrides, stop)
    if results is not None:
        print(results.text())


if __name__ == "__main__":
    sys.exit(main())
