"""Variables that Ray reads when it starts. Nothing here imports Ray."""

import os
import re

from sptskm.common.errors import ConfigError

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # it would print a table at any verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoard shows what the trainer writes
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the last report of a trial says how it ended, nothing else
}
NICENESS = "RAY_worker_niceness"


def set_niceness() -> None:
    """Give Ray's workers the priority of other processes, unless the user's RAY_worker_niceness says another.

    Ray's own default of 15 would starve the ranks beside anything else that the machine does. Raises ConfigError for
    what is no number, of which Ray would die without a word.
    """
    value = os.environ.get(NICENESS) or "0"
    if not re.fullmatch(r"-?[0-9]{1,2}", value):
        raise ConfigError(f"{NICENESS} is {value!r} in the environment, wanted a whole number from 0 (as others) to 19")
    os.environ[NICENESS] = value
