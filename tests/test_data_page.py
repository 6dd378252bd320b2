"""docs/data.md quotes messages that the programs have."""

import re

import pytest

from support.paths import ROOT
from test_troubleshooting import occurs

PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE.partition("## What the errors say")[2], re.M)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_one_of_ours(message):
    assert occurs(message)


def test_there_are_messages():
    assert len(MESSAGES) > 3 and not occurs(
        "3 class folders, but nobody has 4 classes; raise Arch.class_num"
    )
