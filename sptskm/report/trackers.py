"""Services that follow experiments: Weights & Biases and MLflow, each switched on by one key, each an extra.

Both may be used without a network: W&B with WANDB_MODE=offline, MLflow with a folder as its tracking URI.
"""

import json
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from types import ModuleType
from typing import Any, Protocol

from sptskm.common.atomic import write_text
from sptskm.common.errors import DataError
from sptskm.common.reading import read_json
from sptskm.config import ConfigError

Values = Mapping[str, float]


class Tracker(Protocol):
    """A service that takes the values of a run."""

    def log(self, values: Values, step: int) -> None:
        """Send the values of a step."""

    def close(self, finished: bool) -> None:
        """Send everything that is waiting, and say how the run ended."""


def _known(mark: Path) -> str | None:
    """Read the id of the run that this folder continues; None without one. Raises DataError for another content."""
    if not mark.is_file():
        return None
    if "id" not in (found := read_json(mark, dict[str, str])):
        raise DataError(f"{mark}: has no id, wanted that of the run that goes on; without the file a new one begins")
    return found["id"]


class Wandb:
    """A run in Weights & Biases; the run of a folder is continued under the same id."""

    def __init__(self, project: str, folder: Path, settings: Mapping[str, Any]) -> None:
        wandb = _module("wandb")
        mark = folder / "wandb.json"
        run_id = _known(mark) or token_hex(4)
        write_text(mark, json.dumps({"id": run_id}))
        self._run = wandb.init(
            project=project, id=run_id, name=folder.name, dir=str(folder), config=dict(settings), resume="allow"
        )
        # a continued run repeats steps, which W&B takes only where the step is a value as any other
        self._run.define_metric("*", step_metric="step")

    def log(self, values: Values, step: int) -> None:
        """Send the values of a step."""
        self._run.log({**values, "step": step})

    def close(self, finished: bool) -> None:
        """Send everything that is waiting; a run that is to be continued is marked as failed, W&B has no other word."""
        self._run.finish(exit_code=0 if finished else 1)


class Mlflow:
    """A run in MLflow, at the address of MLFLOW_TRACKING_URI; the run of a folder is continued."""

    def __init__(self, experiment: str, folder: Path, settings: Mapping[str, Any]) -> None:
        self._mlflow = mlflow = _module("mlflow")
        mlflow.set_experiment(experiment)
        mark = folder / "mlflow.json"
        known = _known(mark)
        run = mlflow.start_run(run_id=known, run_name=None if known else folder.name)
        write_text(mark, json.dumps({"id": run.info.run_id}))
        if known is None:
            mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})

    def log(self, values: Values, step: int) -> None:
        """Send the values of a step."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self, finished: bool) -> None:
        """Send everything that is waiting, and say how the run ended."""
        self._mlflow.end_run("FINISHED" if finished else "KILLED")


def trackers(wandb: str, mlflow: str, folder: Path, settings: Mapping[str, Any]) -> list[Tracker]:
    """Open the services that are named: a project of W&B, an experiment of MLflow, each none where empty.

    Raises ConfigError where the library is not installed.
    """
    opened: list[Tracker] = []
    if wandb:
        opened.append(Wandb(wandb, folder, settings))
    if mlflow:
        opened.append(Mlflow(mlflow, folder, settings))
    return opened


def check_trackers(wandb: str, mlflow: str) -> None:
    """Raise ConfigError where the library of a chosen service is not installed."""
    for name, chosen in (("wandb", wandb), ("mlflow", mlflow)):
        if chosen and find_spec(name) is None:
            raise _missing(name)


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise _missing(name) from None


def _missing(name: str) -> ConfigError:
    return ConfigError(f"train.{name} is set, but {name} is not installed, wanted: pip install 'sptskm[{name}]'")
