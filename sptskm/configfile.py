"""Read configurations from YAML files, command lines and dictionaries, and write them.

Unknown keys and wrong types are errors.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from sptskm.common.reading import parsed_yaml, read_yaml
from sptskm.config import FREE_ON_RESUME, STREAMS, WITHDRAWN, Config, ConfigError, Final

_PACKAGE = Path(__file__).parent
CHECKOUT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
"""Where `configs/` and `slurm/` lie that belong to this code: in the installed package, or in its checkout."""


def find_file(given: Path, home: str = "configs") -> Path:
    """Find a configuration file as typed, or by its name below `home`: from here, else in the checkout.

    Raises FileNotFoundError naming all places that were tried, ConfigError for a folder.
    """
    found = _find(given, home, Path.exists, "file")
    if found.is_dir():
        inside = next(iter(sorted(found.glob("*.yaml"))), found / "ssin.yaml")
        raise ConfigError(f"{given} is a folder, wanted a file, such as {inside}")
    return found


def find_folder(given: Path, home: str = "configs") -> Path:
    """Find a folder of configurations as typed, or by its name below `home`: from here, else in the checkout.

    Raises FileNotFoundError naming all places that were tried, ConfigError for a file.
    """
    files = [f"{stream}.yaml" for stream in STREAMS]
    found = _find(given, home, lambda place: any((place / name).exists() for name in files), "folder")
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
    try:
        config = from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return apply_overrides(config, overrides)


def load_final(path: str | Path, overrides: Sequence[str] = ()) -> Final:
    """Read the settings of the final job and apply overrides; a missing file means the defaults."""
    path = Path(path)
    values = read_yaml(path) if path.exists() else {}
    return apply_overrides(named(path, Final(), values), overrides)


def named(path: Path, defaults: Any, values: Mapping[str, Any]) -> Any:
    """Call `merge`, and name the file in its errors."""
    try:
        return merge(defaults, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def apply_overrides(config: Any, overrides: Sequence[str]) -> Any:
    """Return `config` with `a.b=value` overrides applied together; the last one of a key counts.

    Values are read as YAML. For a key that takes text, the value is used as it is, unless it is quoted.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r}: wanted section.key=value")
        verbatim = _is_text(config, dotted) and not text.startswith(("'", '"'))
        _put(values, dotted, text if verbatim else _yaml_value(override, text))
    return merge(config, values)


def _is_text(config: Any, dotted: str) -> bool:
    """Return whether the key exists and takes any text, such as a path that may look like a date or a list."""
    *sections, key = dotted.split(".")
    for section in sections:
        config = getattr(config, section, None)
    return dataclasses.is_dataclass(config) and get_type_hints(type(config)).get(key) is str


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn values by dotted names into nested sections: the inverse of `flat`."""
    nested: dict[str, Any] = {}
    for dotted, value in values.items():
        _put(nested, dotted, value)
    return nested


def _put(nested: dict[str, Any], dotted: str, value: Any) -> None:
    """Store a value, or some keys of a section, at a dotted name; other keys of the section are kept."""
    *sections, key = dotted.split(".")
    place = nested
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError(f"{dotted}: {section} was given a value of its own before")
    if isinstance(value, Mapping) and isinstance(place.get(key), dict):
        for name, part in value.items():
            _put(nested, f"{dotted}.{name}", part)
    else:
        place[key] = dict(value) if isinstance(value, Mapping) else value


def _yaml_value(override: str, text: str) -> Any:
    try:
        return parsed_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML ({error})") from None


def merge(section: Any, values: Mapping[str, Any], prefix: str = "", everything: Sequence[str] = ()) -> Any:
    """Return a copy of a section with some values replaced; ConfigError for an unknown key or a wrong type.

    `everything` holds the dotted names that are suggested for an unknown key, by default those of the section.
    """
    everything = everything or [f"{prefix}{name}" for name in flat(dataclasses.asdict(section)) if name != "stream"]
    hints = {key: hint for key, hint in get_type_hints(type(section)).items() if key != "stream"}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key in WITHDRAWN and isinstance(section, Final):
            if value is not WITHDRAWN[key]:
                raise ConfigError(f"{name} is {value!r}, wanted it left out: this version has no such setting any more")
            continue
        if key not in hints:
            raise ConfigError(_unknown(name, key, hints, everything))
        current = getattr(section, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name} is a section, wanted {name}.key=value, found {value!r}")
            changes[key] = merge(current, value, f"{name}.", everything)
        elif isinstance(current, dict):
            changes[key] = {**current, **_mapping(value, name)}
        else:
            changes[key] = _coerce(value, hints[key], name)
    return dataclasses.replace(section, **changes)


def _mapping(value: Any, name: str) -> dict[str, Any]:
    """Return a section whose keys are free, after checking that it is one."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{name} is {value!r}, wanted a section of `key: value` lines")
    return dict(value)


def _unknown(name: str, key: Any, hints: Mapping[str, Any], everything: Sequence[str]) -> str:
    """Return the message for an unknown key, with similar keys of this section, else of any section."""
    last = {dotted: dotted.rpartition(".")[2] for dotted in everything}
    near = difflib.get_close_matches(str(key), hints, n=1)
    for wanted in [str(key).rpartition(".")[2], *difflib.get_close_matches(str(key), last.values(), n=1, cutoff=0.8)]:
        near = near or [dotted for dotted in everything if last[dotted] == wanted]
    hint = f"; did you mean {' or '.join(near[:3])}?" if near else ""
    return f"unknown key {name}{hint} (legal here: {', '.join(sorted(hints))})"


def _coerce(value: Any, hint: Any, name: str) -> Any:
    """Convert `value` to the type of `hint`, or raise ConfigError.

    YAML reads 1e-4 as a string, so numbers may be text.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value in args:
            return value
        raise ConfigError(f"{name} is {value!r}, wanted one of {', '.join(map(str, args))}")
    if origin in (Union, types.UnionType):
        return None if value is None else _coerce(value, args[0], name)
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_coerce(item, args[0], name) for item in items)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        if "\0" in value:  # most of these are paths, where the system takes none
            raise ConfigError(f"{name} is {value!r}, wanted it without zero bytes")
        return value
    if hint in (int, float) and not isinstance(value, bool):
        number = _number(value, hint)
        if number is not None:
            return number
    raise ConfigError(f"{name} is {value!r}, wanted {hint.__name__}")


def _number(value: Any, hint: type[int] | type[float]) -> int | float | None:
    """Convert a value to a number of that type, or return None if it is not one.

    A whole number keeps all its digits, also beyond the precision of a float.
    """
    if hint is int and isinstance(value, int | str):
        with suppress(ValueError):
            return int(value)
    with suppress(TypeError, ValueError, OverflowError):
        number = float(value)
        if math.isfinite(number) and (hint is float or number.is_integer()):
            return hint(number)
    return None


def to_dict(config: Config | Final) -> dict[str, Any]:
    """Return the complete configuration as plain lists, numbers and strings, as YAML and checkpoints store it."""
    return {
        key: {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()} if isinstance(value, dict) else value
        for key, value in dataclasses.asdict(config).items()
    }


def from_dict(values: Mapping[str, Any]) -> Config:
    """Build a training configuration from the output of `to_dict`. Raises ConfigError naming the key."""
    rest = {key: value for key, value in values.items() if key != "stream"}
    stream = values.get("stream")
    if not isinstance(stream, str) or stream not in STREAMS:
        raise ConfigError(f"stream is {stream!r}, wanted one of {sorted(STREAMS)}")
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
    old, new = defaults | flat(before), flat(after)
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return [f"{n}: {old.get(n)!r} -> {new.get(n)!r}" for n in names if n not in FREE_ON_RESUME]


def in_force(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted names without those that this version no longer has and that changed nothing."""
    idle = {f"final.{key}": value for key, value in WITHDRAWN.items()}
    return {name: value for name, value in settings.items() if name not in idle or value is not idle[name]}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested settings into one dictionary by dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found.update(flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return found
