"""Every command's help has an example, and each example is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from ccr_cli.main import app

ROOT: Any = typer.main.get_command(app)
_QUOTED = re.compile(r"`(ccr[^`]*)`")
_END = {"<", ">", "|", "--"}  # the shell's, or the other program's


def commands(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for word, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*name, word))
    if not getattr(command, "commands", None):
        yield name, command


def examples(command: Any) -> list[str]:
    _, _, said = (command.help or "").partition("Example")
    return _QUOTED.findall(said.replace("\n", " "))


EVERY = list(commands(ROOT))


@pytest.mark.parametrize(("name", "command"), EVERY, ids=[" ".join(name) for name, _ in EVERY])
def test_each_help_has_an_example_that_parses(name: tuple[str, ...], command: Any) -> None:
    """What people copy must work: options that are gone, or arguments in another order, fail here."""
    own = [one for one in examples(command) if tuple(shlex.split(one)[1 : 1 + len(name)]) == name]
    assert own, f"ccr {' '.join(name)}: its help has no example"
    for one in own:
        arguments = shlex.split(one)[1 + len(name) :]
        end = next((number for number, word in enumerate(arguments) if word in _END), len(arguments))
        command.make_context("ccr", arguments[:end], resilient_parsing=False)  # raises what a user would see


def test_there_are_as_many_commands_as_the_page_lists() -> None:
    assert len(EVERY) >= 40
