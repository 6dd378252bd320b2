"""The one logger of the project's messages, and the one form of its lines. A run attaches its
handlers, see log.py.
"""

import logging

__all__ = ["FORMAT", "logger"]

logger = logging.getLogger("ppcls_nextvit")
FORMAT = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
PADDLES = "%(filename)s:%(lineno)s"  # in the form that paddle.distributed gives the root logger


class _InOurForm(logging.Handler):
    """Prints nothing: gives the root logger's handlers that Paddle made, whenever it was imported,
    the form of a run's lines before they print a message of any of our modules.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Change their formatters; without such handlers the message is Python's to print."""
        handlers = logging.getLogger().handlers
        for handler in handlers:
            if handler.formatter is not None and PADDLES in str(handler.formatter._fmt):
                handler.setFormatter(FORMAT)
        last = logging.lastResort
        if not handlers and last is not None and record.levelno >= last.level:
            last.handle(record)


logger.addHandler(_InOurForm())
