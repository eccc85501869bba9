"""`sptskm config`: the configuration in force, and a table of every key with type, default, range and meaning."""

import argparse
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from sptskm.common.settings import declared, meanings, range_of, type_of
from sptskm.config import STREAMS, Config, ConfigError, Final
from sptskm.configfile import find_file, load, load_final, to_dict, to_yaml

USAGE = """sptskm config [--stream NAME] [--run FOLDER] [--markdown] [FOLDER or FILE] [section.key=value ...]

Print the configuration in force, every value of it. Of a folder (default: configs/mars) it is what
`sptskm local|slurm|tune --config FOLDER` runs, with the same overrides and --run; of a file, that stream's or the
final job's. Nothing is started, and no data are read. --markdown prints the table below as a page of docs/."""
PAGE = """# Every key of the configuration

Keys stand in the YAML files of a folder of `configs/`, or are given as `section.key=value` behind a command, where
`ssin.section.key=value` is for one stream and `final.key=value` for the final job. A file holds only what differs from
the defaults. `sptskm config FOLDER` prints what is in force. This page is what `sptskm config --markdown` prints.
"""


@dataclass(frozen=True)
class Key:
    """One key, in words."""

    name: str
    type: str
    default: str
    range: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """Keys that stand together in a file."""

    title: str
    about: str
    keys: Sequence[Key]


class _Parser(argparse.ArgumentParser):
    """A parser whose help is every key, put together only when it is asked for."""

    def format_help(self) -> str:
        return f"usage: {USAGE}\n\n{described()}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of `sptskm config`; parse with `parse_intermixed_args`."""
    found = _Parser(prog="sptskm config", usage=USAGE.partition("\n")[0], allow_abbrev=False)
    found.add_argument("words", nargs="*")
    found.add_argument("--stream")
    found.add_argument("--run", type=Path)
    found.add_argument("--markdown", action="store_true")
    return found


def run(chosen: argparse.Namespace) -> str:
    """Return what `sptskm config` prints. Raises ConfigError or FileNotFoundError naming the file or the key."""
    if chosen.markdown:
        return markdown()
    words = list(chosen.words)
    place = Path(words.pop(0)) if words and ("=" not in words[0] or Path(words[0]).exists()) else Path("configs/mars")
    if place.suffix not in (".yaml", ".yml") and not place.is_file():
        return _of_folder(place, chosen, words)
    if chosen.stream is not None or chosen.run is not None:
        raise ConfigError(f"{place} is a file, wanted a folder with --stream and --run")
    file = find_file(place)
    return to_yaml(load_final(file, words) if file.stem == "final" else load(file, words))


def _of_folder(folder: Path, chosen: argparse.Namespace, overrides: Sequence[str]) -> str:
    """Return the configuration that a launcher would run, by stream, and that of the final job."""
    from sptskm.launching.plan import GROUPS, make_plan

    if chosen.stream not in (None, *STREAMS, *GROUPS):
        raise ConfigError(f"--stream is {chosen.stream}, wanted one of {', '.join((*STREAMS, *GROUPS))}")
    asked = argparse.Namespace(stream=chosen.stream or "all", config=folder, run=chosen.run, overrides=overrides)
    plan = make_plan(asked)
    parts = {config.stream: to_dict(config) for config in plan.configs} | {"final": to_dict(plan.final)}
    return "\n".join(yaml.safe_dump({name: part}, sort_keys=False) for name, part in parts.items())


def sections() -> Iterator[Section]:
    """Yield every section of the configuration: those of a stream, of the final job, and of the other files."""
    from sptskm.evaluation.protocols import Protocol
    from sptskm.launching.cluster import Cluster
    from sptskm.tuning.space import Rules

    configs = {name: spec.defaults for name, spec in STREAMS.items()}
    of_all = {name: part for name, part in vars(next(iter(configs.values()))).items() if is_dataclass(part)}
    for name in sorted(of_all, key=lambda name: name in ("clips", "model", "loss")):
        parts = {stream: getattr(config, name) for stream, config in configs.items()}
        if len({type(part) for part in parts.values()}) == 1:
            yield _section(f"{name}", type(of_all[name]), f"{name}.", parts)
        else:
            for stream, part in parts.items():
                yield _section(f"{name} of {stream}", type(part), f"{name}.", {stream: part})
    run = Key("run", "text", _shown(""), "", meanings(Config)["run"])
    yield Section("run", "Given by --run to the launchers.", [run])
    yield _section("final", Final, "final.", {"": Final()}, "in final.yaml without `final.`")
    yield _section("a cluster file", Cluster, "", {"": Cluster()}, "--cluster")
    yield _section("a search file", Rules, "", {"": Rules()}, "--search")
    yield _section("a protocol file", Protocol, "", {}, "final.protocol=FILE, a protocol states all of them")


def _section(title: str, kind: type[Any], prefix: str, defaults: dict[str, Any], where: str = "") -> Section:
    """Return the keys of a class, with the default of each stream where these differ."""
    said, keys = meanings(kind), []
    for name, field in declared(kind).items():
        values = {stream: _shown(getattr(part, name)) for stream, part in defaults.items()}
        same = len(set(values.values())) == 1
        default = next(iter(values.values())) if same else ", ".join(f"{key}: {value}" for key, value in values.items())
        keys.append(Key(f"{prefix}{name}", type_of(field), default, range_of(field), said[name]))
    about = " ".join((inspect.getdoc(kind) or "").split())
    return Section(title, f"{about} ({where})" if where else about, keys)


def _shown(value: Any) -> str:
    """Return a default as a file would hold it."""
    if value in ("", None, {}, ()):
        return "empty"
    return str(list(value) if isinstance(value, tuple) else value).replace("True", "true").replace("False", "false")


def described() -> str:
    """Return every key as text for a terminal."""
    lines = []
    for part in sections():
        lines += ["", *textwrap.wrap(f"{part.title}: {part.about}", 110)]
        for key in part.keys:
            facts = [key.type, key.range, f"default {key.default}" if key.default else ""]
            lines.append(f"  {key.name}  ({'; '.join(filter(None, facts))})")
            lines += textwrap.wrap(key.meaning, 104, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines[1:]) + "\n"


def markdown() -> str:
    """Return the page docs/configuration.md."""
    lines = [PAGE]
    for part in sections():
        lines += [
            f"## {part.title}",
            "",
            part.about,
            "",
            "| key | type | default | range | meaning |",
            "|---|---|---|---|---|",
        ]
        for key in part.keys:
            row = (f"`{key.name}`", key.type, f"`{key.default}`" if key.default else "", key.range, key.meaning)
            lines.append(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |")
        lines.append("")
    return "\n".join(lines)
