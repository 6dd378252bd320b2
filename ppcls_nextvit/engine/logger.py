"""The one logger of the project's messages, and the one form of its lines. A run attaches its
handlers, see log.py.
"""

import logging

__all__ = ["FORMAT", "logger"]

logger = logging.getLogger("ppcls_nextvit")
FORMAT = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
PADDLES = "%(filename)s:%(lineno)s"  # in the form that paddle.distributed gives the root logger


def _use_format(record: logging.LogRecord) -> bool:
    """Where Paddle prints our messages outside of a run, they have the form of a run's. A filter
    that lets all pass: Paddle makes its handlers when it is imported, whenever that is.
    """
    for handler in logging.getLogger().handlers:
        if handler.formatter is not None and PADDLES in str(handler.formatter._fmt):
            handler.setFormatter(FORMAT)
    return True


logger.addFilter(_use_format)
