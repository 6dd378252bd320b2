"""Why a file is not read."""

__all__ = ["FormatError", "PickleError"]


class FormatError(ValueError):
    """Why a file was refused, or how it is damaged: one line, without the file's name, which the
    caller adds.
    """


class PickleError(FormatError):
    """Why a pickle was refused."""
