"""Terminal output and logs: what a full disk does to them."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from sptskm.common.console import Messages


def test_messages_that_a_full_disk_does_not_take_end_nothing():
    with Messages(Path("/dev/full")) as messages, redirect_stdout(messages):
        assert sys.stdout.write("a node has died\n") == 16


def test_messages_are_added_to_those_of_an_earlier_run(tmp_path):
    for text in ("first", "zweite, ä"):
        with Messages(tmp_path / "ray.log") as messages:
            print(text, file=messages)
    assert (tmp_path / "ray.log").read_text("utf-8") == "first\nzweite, ä\n"
