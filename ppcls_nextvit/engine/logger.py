"""The one logger of the project's messages, and the one form of its lines. A run attaches its
handlers, see log.py.
"""

import logging

__all__ = ["FORMAT", "logger", "use_format"]

logger = logging.getLogger("ppcls_nextvit")
FORMAT = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
PADDLES = "%(filename)s:%(lineno)s"  # in the form that paddle.distributed gives the root logger


def use_format() -> None:
    """Where Paddle prints our messages outside of a run, they have the form of a run's."""
    for handler in logging.getLogger().handlers:
        if handler.formatter is not None and PADDLES in str(handler.formatter._fmt):
            handler.setFormatter(FORMAT)
