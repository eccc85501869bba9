"""Read configurations from YAML files, command lines and dictionaries, and write them.

Unknown keys and wrong types are errors.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from sptskm.common.reading import parsed_yaml, read_yaml
from sptskm.common.settings import SettingsError, declared, refuse, said_by
from sptskm.config import FREE_ON_RESUME, STREAMS, Config, ConfigError, Final

_PACKAGE = Path(__file__).parent
CHECKOUT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
"""Where `configs/` and `slurm/` lie that belong to this code: in the installed package, or in its checkout."""
EPOCHS = "train.epochs"
WITHDRAWN: dict[str, dict[str, Any]] = {
    "Final": {"camera_weights": False},
    "SsinClips": {"jitter": 0.0, "grey": 0.0},
    "SsinLoss": {"clothes": 0.0},
    "SsinModel": {"bnneck": False, "mask_parts": []},
    "Cluster": {"executor": "slurm"},
}
"""Settings that earlier versions had, by class of the section, each with the value at which it changed nothing."""


def find_file(given: Path, home: str = "configs") -> Path:
    """Find a configuration file as typed, or by its name below `home`: from here, else in the checkout.

    Raises FileNotFoundError naming all places that were tried, ConfigError for a folder.
    """
    found = _find(given, home, Path.exists, "file")
    if found.is_dir():
        inside = next(iter(sorted(found.glob("*.yaml"))), found / "ssin.yaml")
        raise ConfigError(f"{given} is a folder, wanted a file, such as {inside}")
    return found


def find_folder(given: Path) -> Path:
    """Find a folder of configurations as typed, or by its name below `configs`: from here, else in the checkout.

    Raises FileNotFoundError naming all places that were tried, ConfigError for a file.
    """
    files = [f"{stream}.yaml" for stream in STREAMS]
    found = _find(given, "configs", lambda place: any((place / name).exists() for name in files), "folder")
    if not found.is_dir():
        raise ConfigError(
            f"{given} is a file, wanted a folder that holds {' or '.join(files)}, such as {found.absolute().parent}"
        )
    return found


def _find(given: Path, home: str, fits: Callable[[Path], bool], what: str) -> Path:
    """Return the first place that fits, else the first that exists; places here come before the checkout."""
    below = [""] if given.parts[:1] == ("configs",) else ["", home]
    places = [base / folder / given for base in (Path(), CHECKOUT) for folder in below]
    places = list(dict.fromkeys([given] if given.is_absolute() else places))
    there = [place for place in places if place.exists()]
    if not there:
        tried = ", ".join(dict.fromkeys(str(place.absolute()) for place in places))
        raise FileNotFoundError(f"{given}: no such {what} (tried {tried})")
    return next((place for place in there if fits(place)), there[0])


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration from a YAML file and apply `section.key=value` overrides.

    Raises FileNotFoundError, or ConfigError naming the file and the key.
    """
    path = Path(path)
    values = read_yaml(path)
    with said_by(path):
        config = from_dict(values)
    return apply_overrides(config, overrides)


def load_final(path: str | Path, overrides: Sequence[str] = ()) -> Final:
    """Read the settings of the final job and apply overrides, spelt without `final.`; no file means the defaults."""
    path = Path(path)
    values = read_yaml(path) if path.exists() else {}
    return apply_final(named(path, Final(), values), overrides)


def apply_final(settings: Final, overrides: Sequence[str]) -> Final:
    """Apply overrides, spelt without `final.`; errors name the keys with it, as command lines and docs do."""
    return cast(Final, apply_overrides(settings, overrides, "final."))


def named(path: Path, defaults: Any, values: Mapping[str, Any]) -> Any:
    """Call `merge`, and name the file in its errors."""
    with said_by(path):
        return merge(defaults, values)


def apply_overrides(config: Any, overrides: Sequence[str], prefix: str = "") -> Any:
    """Return `config` with `a.b=value` overrides applied together; the last one of a key counts.

    Values are read as YAML. For a key that takes text, the value is used as it is, unless it is quoted. Errors name
    keys behind `prefix`.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"override {prefix + override!r}: wanted section.key=value")
        verbatim = _is_text(config, dotted) and not text.startswith(("'", '"'))
        _put(values, dotted, text if verbatim else _yaml_value(prefix + override, text), prefix)
    return merge(config, values, prefix)


def _is_text(config: Any, dotted: str) -> bool:
    """Return whether the key exists and takes any text, such as a path that may look like a date or a list."""
    *sections, key = dotted.split(".")
    for section in sections:
        config = getattr(config, section, None)
    fields = declared(type(config)) if dataclasses.is_dataclass(config) else {}
    return key in fields and fields[key].annotation is str


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn values by dotted names into nested sections: the inverse of `flat`."""
    nested: dict[str, Any] = {}
    for dotted, value in values.items():
        _put(nested, dotted, value)
    return nested


def _put(nested: dict[str, Any], dotted: str, value: Any, prefix: str = "") -> None:
    """Store a value, or some keys of a section, at a dotted name; other keys of the section are kept.

    Raises ConfigError, which names the key behind `prefix`, for a key of what is no section.
    """
    *sections, key = dotted.split(".")
    place = nested
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError(f"{prefix}{dotted}: {section} was given a value of its own before")
    if isinstance(value, Mapping) and isinstance(place.get(key), dict):
        for name, part in value.items():
            _put(nested, f"{dotted}.{name}", part, prefix)
    else:
        place[key] = dict(value) if isinstance(value, Mapping) else value


def _yaml_value(override: str, text: str) -> Any:
    try:
        return parsed_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML ({error})") from None


def merge(section: Any, values: Mapping[str, Any], prefix: str = "", everything: Sequence[str] = ()) -> Any:
    """Return a copy of a section with some values replaced.

    Raises SettingsError with a sentence for every unknown key and every value that cannot be used; if each value is
    right, for those that do not go together. `everything` holds the dotted names that are suggested for an unknown key,
    by default those of the section.
    """
    everything = everything or [f"{prefix}{name}" for name in flat(dataclasses.asdict(section)) if name != "stream"]
    legal = [key for key in declared(type(section)) if key != "stream"]
    withdrawn = WITHDRAWN.get(type(section).__name__, {})
    changes: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key in withdrawn:
            if value != withdrawn[key]:
                problems.append(f"{name} is {value!r}, wanted it left out: this version has no such setting any more")
        elif key not in legal:
            problems.append(_unknown(name, key, legal, everything))
        else:
            try:
                changes[key] = _changed(getattr(section, key), value, name, everything)
            except SettingsError as error:
                problems += error.args
    try:
        merged = dataclasses.replace(section, **changes)
    except SettingsError as error:
        problems += [f"{prefix}{problem}" for problem in error.args]
    refuse(problems)
    return merged


def _changed(current: Any, value: Any, name: str, everything: Sequence[str]) -> Any:
    """Return the new value of a setting, merged with the one it has if it is a section."""
    if dataclasses.is_dataclass(current):
        if not isinstance(value, Mapping):
            raise SettingsError(f"{name} is a section, wanted {name}.key=value, found {value!r}")
        return merge(current, value, f"{name}.", everything)
    if isinstance(current, dict):
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise SettingsError(f"{name} is {value!r}, wanted a section of `key: value` lines")
        return {**current, **value}
    return value


def _unknown(name: str, key: Any, legal: Sequence[str], everything: Sequence[str]) -> str:
    """Return the message for an unknown key, with similar keys of this section, else of any section."""
    last = {dotted: dotted.rpartition(".")[2] for dotted in everything}
    near = difflib.get_close_matches(str(key), legal, n=1)
    for wanted in [str(key).rpartition(".")[2], *difflib.get_close_matches(str(key), last.values(), n=1, cutoff=0.8)]:
        near = near or [dotted for dotted in everything if last[dotted] == wanted]
    hint = f"; did you mean {' or '.join(near[:3])}?" if near else ""
    return f"unknown key {name}{hint} (legal here: {', '.join(sorted(legal))})"


def to_dict(config: Config | Final) -> dict[str, Any]:
    """Return the complete configuration as plain lists, numbers and strings, as YAML and checkpoints store it."""
    return _plain(dataclasses.asdict(config))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _plain(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
    }


def from_dict(values: Mapping[str, Any]) -> Config:
    """Build a training configuration from the output of `to_dict`. Raises ConfigError naming the key."""
    rest = {key: value for key, value in values.items() if key != "stream"}
    stream = values.get("stream")
    if not isinstance(stream, str) or stream not in STREAMS:
        raise SettingsError(f"stream is {stream!r}, wanted one of {sorted(STREAMS)}")
    return merge(STREAMS[stream].defaults, rest)


def to_yaml(config: Config | Final) -> str:
    """Return the complete configuration as YAML text that `load` can read."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the settings that differ between two `to_dict` results and may not change on resume.

    Each is `name: before -> after`. A setting that did not exist before had its default value.
    """
    stream = str(after.get("stream"))
    defaults = flat(to_dict(STREAMS[stream].defaults)) if stream in STREAMS else {}
    old, new = {n: value for n, value in (defaults | flat(before)).items() if not _is_idle(n, value)}, flat(after)
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    changed = [f"{n}: {old.get(n)!r} -> {new.get(n)!r}" for n in names if n not in FREE_ON_RESUME]
    if EPOCHS in names and new.get("optim.schedule") == "cosine":
        changed.append(f"{EPOCHS}: {old.get(EPOCHS)} -> {new.get(EPOCHS)}, on which a cosine schedule depends")
    return changed


def differing(settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ from the defaults of their stream by dotted names: value and default.

    `settings` is a `to_dict` result; the folder of the run is left out.
    """
    defaults = flat(to_dict(STREAMS[str(settings["stream"])].defaults))
    # a section that is empty by default, such as model.architecture, has no keys there
    told = {name: (value, defaults.get(name, "")) for name, value in flat(settings).items() if name != "run"}
    return {name: pair for name, pair in told.items() if pair[0] != pair[1]}


def in_force(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted names without those that change nothing and that another version does not have."""
    return {
        name: value
        for name, value in settings.items()
        if not _is_idle(name, value) and not (name == "final.streams" and value == [])
    }


def _is_idle(dotted: str, value: Any) -> bool:
    """Return whether this is a withdrawn setting at the value at which it changed nothing."""
    key = dotted.rpartition(".")[2]
    return any(key in keys and value == keys[key] for keys in WITHDRAWN.values())


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested settings into one dictionary by dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found.update(flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return found
