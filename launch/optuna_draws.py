"""Settings drawn by Optuna, one study for each stream; what it knows lies in a journal in the folder of the search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from launch import search as searches
from launch.plan import Plan
from sptskm.config import Config
from sptskm.search import Draw, Search, Settings, Trial, folder_of, ordered, present, read_trial


class OptunaDraws(Searcher):
    """Hands out the streams in turn: first what an earlier search has left unfinished, then new settings."""

    def __init__(self, plan: Plan, searched: searches.Searches) -> None:
        super().__init__(metric="mAP", mode="max")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.searched, self.home = searched, searches.folder(plan)
        self.home.mkdir(parents=True, exist_ok=True)
        self.studies: dict[str, optuna.Study] = {
            stream: _study(self.home, search, plan.config(stream)) for stream, search in searched.items()
        }
        self.left = self._catch_up()
        self.handed_out: dict[str, tuple[str, int]] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial, or that there are no more."""
        if self.left:
            asked = self.left.pop(0)
        else:
            missing = {name: self.searched[name].trials - _asked(study) for name, study in self.studies.items()}
            stream = max(missing, key=lambda name: missing[name])
            if missing[stream] <= 0:
                return Searcher.FINISHED
            new = self._ask(stream)
            settings = drawn(new, self.searched[stream].space)
            new.set_user_attr("settings", settings)
            asked = self._task(stream, new.number, settings)
        self.handed_out[trial_id] = asked["stream"], asked["number"]
        return {"trial": asked}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn from what a trial has come to; its record knows more than its last result."""
        del result, error
        stream, number = self.handed_out.pop(trial_id)
        self._tell(stream, number, read_trial(folder_of(self.home, stream, number)))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing is learnt before the end."""

    def save(self, checkpoint_path: str) -> None:
        """The journal is always up to date."""

    def restore(self, checkpoint_path: str) -> None:
        """The journal is read when this is made."""

    def _catch_up(self) -> list[dict[str, Any]]:
        """Tell the studies what ended when nobody listened; what has not ended."""
        left: list[dict[str, Any]] = []
        for stream, study in self.studies.items():
            for asked in study.get_trials(states=[TrialState.RUNNING]):
                record = read_trial(folder_of(self.home, stream, asked.number))
                if record is not None and record.end:
                    self._tell(stream, asked.number, record)
                elif "settings" in asked.user_attrs:
                    left.append(self._task(stream, asked.number, asked.user_attrs["settings"]))
                else:  # killed while it was drawn
                    study.tell(asked.number, state=TrialState.FAIL)
        return left

    def _ask(self, stream: str) -> optuna.Trial:
        """The study's next draw, which an interruption before it does not change."""
        study = self.studies[stream]
        seed = self.searched[stream].generator(_asked(study)).integers(2**31)
        study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        return study.ask()

    def _task(self, stream: str, number: int, settings: Settings) -> dict[str, Any]:
        return {"stream": stream, "number": number, "settings": settings, "epochs": self.searched[stream].epochs}

    def _tell(self, stream: str, number: int, record: Trial | None) -> None:
        if record is None or record.best is None:
            self.studies[stream].tell(number, state=TrialState.FAIL)
        else:
            self.studies[stream].tell(number, record.best.mAP)


def _asked(study: optuna.Study) -> int:
    """Trials that have been handed out."""
    return sum(trial.state != TrialState.WAITING for trial in study.trials)


def drawn(trial: optuna.Trial, space: Mapping[str, Draw]) -> Settings:
    """Settings as Optuna suggests them, each after those it depends on."""
    settings: Settings = {}
    for name in ordered(space):
        if space[name].applies(settings):
            settings[name] = _suggest(trial, name, space[name])
    return settings


def _suggest(trial: optuna.Trial, name: str, draw: Draw) -> Any:
    if draw.kind == "choice":  # by its place: Optuna knows no lists
        return draw.values[trial.suggest_categorical(name, list(range(len(draw.values))))]
    low, high = draw.values[:2]
    if draw.kind == "integer":
        return trial.suggest_int(name, int(low), int(high))
    step = draw.values[2] if draw.kind == "quantised" else None
    return trial.suggest_float(name, low, high, step=step, log=draw.kind == "loguniform")


def _study(home: Path, search: Search, config: Config) -> optuna.Study:
    """The study of a stream; a new one begins with the configuration as it is, as far as that could be drawn."""
    storage = JournalStorage(JournalFileBackend(str(home / f"optuna-{search.stream}.log")))
    study = optuna.create_study(storage=storage, study_name=search.stream, direction="maximize", load_if_exists=True)
    if not study.trials:
        space = search.space
        known = {name: value for name, value in present(config, space).items() if space[name].holds(value)}
        study.enqueue_trial(
            {n: space[n].values.index(value) if space[n].kind == "choice" else value for n, value in known.items()}
        )
    return study
