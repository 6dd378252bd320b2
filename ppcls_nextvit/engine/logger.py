"""The one logger of the project's messages. A run attaches its handlers, see log.py."""

import logging

__all__ = ["logger"]

logger = logging.getLogger("ppcls_nextvit")
