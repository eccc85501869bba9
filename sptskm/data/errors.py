"""The one exception of the data room."""


class DataError(ValueError):
    """Data that cannot be used; the message is one sentence with the path, what was found and what was wanted."""
