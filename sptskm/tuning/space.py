"""Search files: which settings of a stream vary, how they are drawn, and how long trials may run.

    trials: 32
    epochs: 60
    smin:
      epochs: 120
      optim.lr: {loguniform: [1.0e-4, 1.0e-1]}
      optim.algorithm: {choice: [adam, sgd]}
      optim.weight_decay: {loguniform: [1.0e-6, 1.0e-3], when: {optim.algorithm: [sgd]}}

Names with a dot are settings that vary; names without a dot are rules, which in a section hold for that stream only.
Ray Tune draws the trials; trial 0 is the unchanged configuration.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sptskm.common.reading import read_yaml
from sptskm.common.settings import refuse, said_by, settings
from sptskm.config import STREAMS, Config, ConfigError
from sptskm.configfile import flat, merge, named, nest, to_dict

Settings = dict[str, Any]
"""Values by the dotted names of configuration keys."""

DIGITS = 10  # of a quantised value, so that 0.1 + 2 * 0.1 is 0.3
KINDS = ("choice", "uniform", "loguniform", "integer", "quantised")
# what makes the scores of trials comparable belongs to the search, not to a trial
FIXED = ("run", "data.root", "data.held_out", "data.split_seed", "data.fold", "train.epochs", "train.validate_every")
# what neither the shape of the network nor the number of steps depends on
ADAPTABLE = ("loss.", "optim.lr", "optim.weight_decay", "model.dropout", "clips.random_move")
OF_ALL = ("seed", "method", "scheduler", "retries")
MOST = 1_000_000_000  # of every number
From1 = Annotated[int, Field(ge=1, le=MOST)]


@dataclass(frozen=True)
class Distribution:
    """Distribution of one setting, and the conditions under which it applies."""

    kind: str
    values: tuple[Any, ...]
    """Members of a choice; otherwise both ends (included), and the step of a quantised range."""
    when: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def nearest(self, number: float) -> float:
        """Return the value of a range that is nearest to a number."""
        low, high = self.values[:2]
        number = min(max(float(number), low), high)
        if self.kind == "integer":
            return round(number)
        if self.kind == "quantised":
            step = self.values[2]
            return round(low + step * min(round((number - low) / step), math.floor((high - low) / step + 1e-9)), DIGITS)
        return number

    @property
    def members(self) -> Sequence[Any]:
        """Return every value of a choice or a quantised range, in order."""
        if self.kind == "choice":
            return self.values
        low, high, step = self.values
        return [self.nearest(low + step * count) for count in range(math.floor((high - low) / step + 1e-9) + 1)]

    def holds(self, value: Any) -> bool:
        """Return whether a value lies in the choice or range; the steps of a quantised range are ignored."""
        return value in self.values if self.kind == "choice" else self.values[0] <= value <= self.values[1]

    @property
    def extremes(self) -> Sequence[Any]:
        """Return the members of a choice, or both ends of a range: if these are legal, all values are."""
        return self.values if self.kind == "choice" else (self.nearest(self.values[0]), self.nearest(self.values[1]))

    def applies(self, settings: Mapping[str, Any]) -> bool:
        """Return whether this setting applies, given the settings drawn before it."""
        return all(settings.get(name) in values for name, values in self.when.items())


@settings
class Rules:
    """Rules for drawing, running and stopping trials: keys of search files.

    Seed, method, scheduler and retries hold for all streams.
    """

    trials: From1 = 32
    """Number of trials; a grid has one for each combination of its choices."""
    seed: Annotated[int, Field(ge=0, le=MOST)] = 0
    """Seed of the searcher."""
    method: Literal["random", "grid", "optuna"] = "random"
    """Tune's searcher: random, every combination of the choices, or Optuna's TPE."""
    scheduler: Literal["asha", "hyperband", "median", "pbt", "none"] = "asha"
    """Tune's scheduler: asynchronous halving, the same in several brackets, the median rule, PBT, or none."""
    epochs: From1 = 40
    """Epochs of a trial that is not stopped early."""
    validate_every: From1 = 1
    """Epochs between the scores of a trial."""
    grace_epochs: From1 = 4
    """Epochs before a trial may be stopped early; with pbt the perturbation interval."""
    reduction: Annotated[int, Field(ge=2, le=MOST)] = 3
    """Reduction factor of the rungs; with pbt the best and worst 1/reduction of the trials are the quantiles."""
    workers: From1 = 1
    """Ranks of a trial."""
    cpus_per_worker: From1 = 1
    """CPUs of each rank."""
    gpus_per_worker: Annotated[float, Field(ge=0, le=MOST)] = 1.0
    """GPUs of each rank; less than one lets trials share a GPU. Ignored on nodes without GPUs."""
    retries: Annotated[int, Field(ge=0, le=MOST)] = 2
    """How often a trial that has lost a worker or a node is restarted."""

    def __post_init__(self) -> None:
        refuse(self._conflicts())

    def _conflicts(self) -> Iterator[str]:
        """Yield a sentence for each rule that does not go with the others."""
        if self.validate_every > self.grace_epochs or self.grace_epochs > self.epochs:
            yield (
                f"validate_every is {self.validate_every}, grace_epochs {self.grace_epochs} and epochs {self.epochs}, "
                "wanted each no more than the next"
            )
        if self.gpus_per_worker not in (0, 1) and (self.gpus_per_worker > 1 or self.workers > 1):
            yield (
                f"gpus_per_worker is {self.gpus_per_worker:g} and workers {self.workers}, wanted a GPU for each, "
                "none, or a part of one for a single worker"
            )
        if self.scheduler == "pbt" and self.method != "random":
            yield f"scheduler is pbt and method {self.method}, wanted random: PBT takes no searcher"


@settings
class Search(Rules):
    """Hyper-parameter search of one stream."""

    stream: str = ""
    space: Mapping[str, Distribution] = field(default_factory=dict)
    """Distribution of each setting, by its dotted name."""


def load_search(path: str | Path) -> dict[str, Search]:
    """Read a search file and return its searches by stream.

    Raises ConfigError or FileNotFoundError naming the file and the key at fault.
    """
    path = Path(path)
    content = read_yaml(path)
    sections = {stream: content.pop(stream) for stream in STREAMS if content.get(stream)}
    if not sections:
        raise ConfigError(f"{path}: nothing varies, wanted a section {' or '.join(STREAMS)}")
    shared = named(path, Rules(), content)
    with said_by(path):
        return {stream: _search(stream, section, shared) for stream, section in sections.items()}


def _search(stream: str, section: Any, shared: Rules) -> Search:
    """Parse the section of a stream: keys with a dot are settings that vary, others are rules of this stream."""
    if not isinstance(section, Mapping):
        raise ConfigError(f"{stream} is {section!r}, wanted lines of `section.key: {{choice: [...]}}`")
    own = {name: value for name, value in section.items() if "." not in str(name)}
    if common := [name for name in OF_ALL if name in own]:
        raise ConfigError(f"{stream}.{common[0]} is for all streams, wanted {common[0]} outside of the sections")
    rules = merge(shared, own, f"{stream}.")
    space = {str(name): _draw(f"{stream}.{name}", text) for name, text in section.items() if name not in own}
    if not space:
        raise ConfigError(f"nothing of {stream} varies, wanted lines of `section.key: {{choice: [...]}}`")
    return Search(**vars(rules), stream=stream, space=space)


def check_search(path: Path, search: Search, config: Config) -> None:
    """Check that `config` can have every value of a search; ConfigError names the file, the key and the value."""
    with said_by(path):
        _check(search, config)


def _check(search: Search, config: Config) -> None:
    space = search.space
    for name, draw in space.items():
        if name in FIXED:
            raise ConfigError(f"{config.stream}.{name} belongs to the search as a whole and cannot vary")
        if search.scheduler == "pbt" and not name.startswith(ADAPTABLE):
            raise ConfigError(
                f"{config.stream}.{name} cannot change while a run goes on, as it does with pbt; "
                f"wanted {', '.join(ADAPTABLE)}"
            )
        for value in draw.extremes:
            merge(config, nest({name: value}))
        if strangers := [other for other in draw.when if other not in space]:
            raise ConfigError(f"{config.stream}.{name} depends on {strangers[0]}, which does not vary")
    if search.method == "grid" and (wide := [name for name, draw in space.items() if draw.kind != "choice"]):
        raise ConfigError(f"{config.stream}.{wide[0]} is no choice, and a grid is made of choices")
    ordered(space)


def configured(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return `config` with the settings of a trial; ConfigError if they do not fit together."""
    return merge(config, nest(settings))


def settings_of(drawn: Mapping[str, Any], space: Mapping[str, Distribution]) -> Settings:
    """Return the settings that apply among those that Tune has drawn, with the types of the configuration."""
    settings: Settings = {}
    for name in ordered(space):
        draw = space[name]
        if not draw.applies(settings):
            continue
        value = drawn[name]
        if draw.kind == "choice":
            settings[name] = next((member for member in draw.values if encoded(member) == value), value)
        else:
            settings[name] = int(value) if draw.kind == "integer" else float(value)
    return settings


def encoded(value: Any) -> Any:
    """Return a value in the form that Tune needs: its searchers read a list as several parameters."""
    return json.dumps(value) if isinstance(value, list) else value


def present(config: Config, space: Mapping[str, Distribution]) -> Settings:
    """Return the values that a configuration has for the settings of a space, in or out of their ranges."""
    values = flat(to_dict(config))
    settings: Settings = {}
    for name in ordered(space):
        if space[name].applies(settings):
            settings[name] = values[name]
    return settings


def _draw(name: str, text: Any) -> Distribution:
    wanted = f"wanted one of {', '.join(f'{kind}: [...]' for kind in KINDS)}"
    if not isinstance(text, Mapping) or len(kinds := [key for key in text if key != "when"]) != 1:
        raise ConfigError(f"{name} is {text!r}, {wanted}")
    kind, values = kinds[0], text[kinds[0]]
    if kind not in KINDS or not isinstance(values, list):
        raise ConfigError(f"{name} is {text!r}, {wanted}")
    if not values:
        raise ConfigError(f"{name}: {kind} is empty, wanted some values")
    when = text.get("when", {})
    if not isinstance(when, Mapping):
        raise ConfigError(f"{name}: when is {when!r}, wanted `other.key: value` lines")
    conditions = {str(key): value if isinstance(value, list) else [value] for key, value in when.items()}
    return Distribution(kind, tuple(values) if kind == "choice" else _ends(name, kind, values), conditions)


def _ends(name: str, kind: str, values: Sequence[Any]) -> tuple[float, ...]:
    """Return the numbers of a range; YAML reads 1e-4 as text."""
    count = 3 if kind == "quantised" else 2
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != count or not all(map(isfinite, numbers)) or not numbers[0] <= numbers[1]:
        ends = "low, high, step" if count == 3 else "low, high"
        raise ConfigError(f"{name}: {kind} is {list(values)}, wanted [{ends}]")
    if kind == "loguniform" and numbers[0] <= 0:
        raise ConfigError(f"{name}: loguniform begins at {numbers[0]:g}, wanted more than 0")
    if kind == "quantised" and numbers[2] <= 0:
        raise ConfigError(f"{name}: quantised has the step {numbers[2]:g}, wanted more than 0")
    if kind == "integer" and any(number != int(number) for number in numbers):
        raise ConfigError(f"{name}: integer is {list(values)}, wanted whole numbers")
    return numbers


def ordered(space: Mapping[str, Distribution]) -> list[str]:
    """Return the names of a space so that each comes after the names it depends on."""
    order: list[str] = []
    while len(order) < len(space):
        ready = [name for name, draw in space.items() if name not in order and set(draw.when) <= set(order)]
        if not ready:
            raise ConfigError(f"{', '.join(name for name in space if name not in order)} depend on one another")
        order += ready
    return order


def grid_points(space: Mapping[str, Distribution]) -> Iterator[Settings]:
    """Yield every combination of the choices once.

    Combinations that differ only in settings that do not apply are the same.
    """
    order, seen = ordered(space), set()
    for values in itertools.product(*(space[name].values for name in order)):
        settings: Settings = {}
        for name, value in zip(order, values, strict=True):
            if space[name].applies(settings):
                settings[name] = value
        if repr(settings) not in seen:
            seen.add(repr(settings))
            yield settings
