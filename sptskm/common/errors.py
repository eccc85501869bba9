"""Errors that tell a user what to change: every message is one sentence."""


class DataError(ValueError):
    """A file or data set that cannot be used; the message names the path, what was found and what was wanted."""


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the key, the value found and the value wanted."""
