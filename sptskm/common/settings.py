"""Check settings by pydantic: a class says type, range, default and meaning of each, and nothing else is to be said.

    @settings
    class Train:
        epochs: Annotated[int, Field(ge=1)] = 1000
        \"\"\"Epochs in all.\"\"\"

Nothing is cast, except what YAML writes in its own way: a number may be text (`1e-4`), a whole number may be a float
without fraction, a float a whole number, and a tuple a list or a single value.
"""

import ast
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationError, field_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from typing_extensions import dataclass_transform

from sptskm.common.errors import ConfigError

T = TypeVar("T")

LARGEST, LARGEST_REAL = 2**63 - 1, 1e30
"""Largest whole and other numbers of all settings: what NumPy and PyTorch hold."""
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


class SettingsError(ConfigError):
    """Settings that cannot be used: each argument is the sentence about one of them, and begins with its key."""

    def __str__(self) -> str:
        return "; ".join(self.args)


@contextmanager
def said_by(path: Path) -> Iterator[None]:
    """Name the file in a ConfigError about what it says."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.args[0]}", *error.args[1:]) from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def refuse(problems: Iterable[str]) -> None:
    """Raise SettingsError with all sentences, if there are any."""
    if found := tuple(problems):
        raise SettingsError(*found)


def together(calls: Iterable[Callable[[], T]]) -> list[T]:
    """Return what each call returns. Raises SettingsError with everything that any of them refuses."""
    found: list[T] = []
    problems: list[str] = []
    for call in calls:
        try:
            found.append(call())
        except SettingsError as error:
            problems += error.args
        except ConfigError as error:
            problems.append(str(error))
    refuse(dict.fromkeys(problems))
    return found


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(cls: type[T]) -> type[T]:
    """Make a frozen dataclass whose instances are checked when they are made, also by `dataclasses.replace`.

    The constructor raises SettingsError about all wrong values at once; then, if each is right, what `__post_init__`
    says of several of them together.
    """
    setattr(cls, "_checked", field_validator("*", mode="wrap")(_checked))  # noqa: B010
    made = cast(Any, dataclass(frozen=True, config=_STRICT)(cls))
    checked = made.__init__

    @functools.wraps(checked)
    def init(self: Any, *args: Any, **values: Any) -> None:
        try:
            checked(self, *args, **values)
        except ValidationError as error:
            problems = [_sentence(made, wrong) for wrong in error.errors(include_url=False)]
            raise SettingsError(*dict.fromkeys(problems)) from None

    made.__init__ = init
    return cast(type[T], made)


def declared(cls: type[Any]) -> dict[str, FieldInfo]:
    """Return the settings of a class by name, as pydantic knows them."""
    return cast(Any, cls).__pydantic_fields__


def kind_of(field: FieldInfo) -> Any:
    """Return the type of a setting, or of the members of a list; Literal for a choice."""
    hint = _inner(field.annotation)
    hint = _inner(get_args(hint)[0]) if get_origin(hint) is tuple else hint
    return get_origin(hint) or hint


def type_of(field: FieldInfo) -> str:
    """Return the type of a setting as a user reads it: `whole number`, `list of numbers`, `adam, sgd`."""
    hint = _inner(field.annotation)
    several = get_origin(hint) is tuple
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    name = {int: "whole number", float: "number", str: "text", bool: "true or false", dict: "section"}[kind_of(field)]
    return f"list of {name}s".replace("texts", "text") if several else name


def range_of(field: FieldInfo) -> str:
    """Return the bounds of a setting as a user reads them: `at least 1`; empty without bounds."""
    return ", ".join(f"{_BOUNDS[bound]} {value}" for bound, value in bounds_of(field).items())


def bounds_of(field: FieldInfo) -> dict[str, float]:
    """Return the bounds declared for a setting: `ge`, `gt`, `le` and `lt`, those there are."""
    return {bound: getattr(part, bound) for part in field.metadata for bound in _BOUNDS if hasattr(part, bound)}


def meanings(cls: type[Any]) -> dict[str, str]:
    """Return what stands below each setting of a class in its source.

    Pydantic's `use_attribute_docstrings` reads it when the class is made, and every command would wait for that.
    """
    body = cast(ast.ClassDef, ast.parse(inspect.getsource(cls)).body[0]).body
    return {
        cast(ast.Name, key.target).id: " ".join(str(said.value.value).split())
        for key, said in itertools.pairwise(body)
        if isinstance(key, ast.AnnAssign) and isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant)
    }


def _inner(hint: Any) -> Any:
    """Return a type without its bounds, and without None beside it."""
    while get_origin(hint) in (Annotated, Union, UnionType):
        hint = get_args(hint)[0]
    return hint


def _checked(cls: type[Any], value: Any, check: Any, info: Any) -> Any:
    """Check a value, after YAML's spelling is undone, and before it may be too large for an array."""
    field = declared(cls)[info.field_name]
    found = check(_plain(value, kind_of(field), get_origin(field.annotation) is tuple))
    for part in found if isinstance(found, tuple) else (found,):
        if isinstance(part, str) and "\0" in part:  # most of these are paths, where the system takes none
            raise ValueError("wanted it without zero bytes")
        if isinstance(part, int | float) and abs(part) > (most := LARGEST if isinstance(part, int) else LARGEST_REAL):
            raise ValueError(f"wanted at most {most}")
    return found


def _plain(value: Any, kind: Any, several: bool) -> Any:
    """Return a value in the type that is wanted, if it is only spelt in another one; else the value itself."""
    if several:
        return tuple(_plain(part, kind, False) for part in (value if isinstance(value, list | tuple) else [value]))
    if kind not in (int, float) or isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    if kind is int and not isinstance(value, float):
        with suppress(ValueError):
            return int(value)  # keeps all digits, also beyond the precision of a float
    with suppress(ValueError, OverflowError):
        number = float(value)
        if math.isfinite(number) and (kind is float or number.is_integer()):
            return kind(number)
    return value


def _sentence(cls: type[Any], wrong: Any) -> str:
    """Return the sentence about one error that pydantic has found."""
    told = str(wrong.get("ctx", {}).get("error", ""))
    if not wrong["loc"]:
        return told or wrong["msg"]
    name = str(wrong["loc"][0])
    field = declared(cls).get(name)
    if field is None:
        return f"unknown key {name} (legal here: {', '.join(sorted(declared(cls)))})"
    if wrong["type"] == "missing":
        return f"{name} is missing"
    value = wrong["input"]
    found = f"{value}" if isinstance(value, int | float) else repr(value)
    if kind_of(field) is dict and len(wrong["loc"]) > 1:
        key = str(wrong["loc"][1])
        hint = ", with a blank behind each colon" if value is None and ":" in key else ""
        return f"{name} has {found} for {key!r}, {told or f'wanted a number of each name{hint}'}"
    return f"{name} is {found}, {told or f'wanted {_wanted(field, wrong)}'}"


def _wanted(field: FieldInfo, wrong: Any) -> str:
    """Return what a value should have been."""
    bounds = bounds_of(field)
    if kept := [bound for bound in _BOUNDS if bound in wrong.get("ctx", {})]:
        # of the key, or of an element of its list
        found = {bound: bounds.get(bound, wrong["ctx"][bound]) for bound in kept}
        both = bounds if len(bounds) == 2 and "le" not in bounds else found
        return " and ".join(f"{_BOUNDS[bound]} {value}" for bound, value in both.items())
    kind = kind_of(field)
    return f"one of {type_of(field)}" if kind is Literal else kind.__name__
