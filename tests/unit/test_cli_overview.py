"""What `ccr status` finds wrong, and how it reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ccr_cli.overview import (
    ConfigState,
    CredentialState,
    NodeState,
    Overview,
    ProviderHealth,
    ProviderState,
    count_words,
    facts,
    health_rows,
    node_rows,
    problems,
    provider_rows,
    size_words,
    time_words,
)
from ccr_cli.screen import plain_table

CONFIG = ConfigState("ccr.yaml", "0123456789abcdef", 7, "2026-11-21T09:00:00Z", None, (), (), ())
NODE = NodeState("worker-0", True, "0.1.0", 4711, 7, 7, 0, "", 3, 2, 0, 50 << 20, "2026-11-21T09:00:00Z")
PROVIDER = ProviderState("zai", 12345, 2, 1, 0.5, 412.0, 1500.0, 9310.0, 60000.0, 1200, 34, 5_600_000, 0, 7)
SINCE = "2026-11-21T09:00:00Z"
HEALTH = ProviderHealth("zai", "zai", True, "closed", SINCE, None, None, None, SINCE, True, 12.34, 200, "", ())
OPEN = replace(
    HEALTH,
    circuit="open",
    open_until="2026-11-21T09:00:30Z",
    last_failure_reason="connect",
    last_failure_at=SINCE,
    probe_is_alive=False,
    probe_problem="no connection: Connection refused",
)
WELL = Overview("unix:/s", "http://127.0.0.1:8787", True, 7, 60.0, CONFIG, (NODE,), (PROVIDER,))


def test_nothing_is_wrong_with_a_relay_that_is_well() -> None:
    """A gone worker is history, not a problem: `server.workers` may have been lowered."""
    assert problems(WELL) == []
    assert problems(replace(WELL, nodes=(NODE, replace(NODE, node_id="worker-1", is_connected=False)))) == []


@pytest.mark.parametrize(
    ("overview", "words"),
    [
        (replace(WELL, nodes=()), "no worker is connected"),
        (replace(WELL, nodes=(replace(NODE, is_connected=False),)), "no worker is connected"),
        (replace(WELL, nodes=(replace(NODE, served_version=6),)), "worker-0 serves version 6, newest is 7"),
        (
            replace(WELL, nodes=(replace(NODE, served_version=6, rejected_version=7, rejection_reason="too big"),)),
            "worker-0 rejects version 7: too big",
        ),
        (replace(WELL, config=replace(CONFIG, refusal_problems=("ccr.yaml:3:5: bad",))), "ccr.yaml:3:5: bad"),
        (replace(WELL, health=(OPEN,)), "zai is passed by since 2026-11-21T09:00:00Z: its circuit is open (connect)"),
        (
            replace(
                WELL, health=(replace(HEALTH, credentials=(CredentialState("role", True, SINCE, "AccessDenied"),)),)
            ),
            f"zai: the credential of role cannot be renewed, and is good until {SINCE}: AccessDenied",
        ),
        (
            replace(WELL, health=(replace(HEALTH, credentials=(CredentialState("role", False, None, ""),)),)),
            "zai: the credential of role is missing",
        ),
        (replace(WELL, relay_answers=False), "the relay does not answer at http://127.0.0.1:8787"),
    ],
)
def test_each_trouble_is_named_once(overview: Overview, words: str) -> None:
    """A monitor acts on the exit code, a person on the words."""
    found = problems(overview)
    assert len(found) == 1
    assert words in found[0]


def test_rows_say_what_a_worker_does() -> None:
    """One word a state."""
    nodes = (
        NODE,
        replace(NODE, served_version=6),
        replace(NODE, served_version=6, rejected_version=7),
        replace(NODE, is_connected=False),
    )
    states = [row[1] for row in node_rows(nodes, WELL.newest_version)]
    assert states == ["serving", "behind", "rejecting", "gone (2026-11-21T09:00:00Z)"]


def test_a_provider_fits_a_row() -> None:
    """Numbers are shortened, nothing measured is a dash."""
    (row,) = provider_rows(WELL)
    expected = "zai|-|-|12345|2|1|0.50|7|412 ms / 1.5 s|9.3 s / 60.0 s|1.2k|34|5.6M|0"
    assert "|".join(row) == expected
    assert time_words(0) == "-"
    assert (count_words(999), count_words(1000)) == ("999", "1.0k")
    assert (size_words(0), size_words(50 << 20)) == ("0 B", "50 MiB")


def test_what_waits_for_a_restart_and_warnings_are_shown() -> None:
    """They are no problems, and still worth knowing."""
    config = replace(CONFIG, restart_needed=("server.listen",), warnings=("ccr.yaml:9:1: odd",))
    shown = dict(facts(replace(WELL, config=config)))
    assert shown["restart for"] == "server.listen"
    assert shown["warning"] == "ccr.yaml:9:1: odd"
    assert problems(replace(WELL, config=config)) == []


def test_plain_tables_are_aligned() -> None:
    """Numbers to the right, no trailing blanks."""
    lines = plain_table(("name", "count"), [("a", "10"), ("longer", "2")], frozenset({1}))
    assert lines == ["name    count", "a          10", "longer      2"]


def test_circuits_and_probes_have_words() -> None:
    """Also of a provider that nobody has asked anything yet."""
    never = replace(HEALTH, provider="new", probe_at=None, probe_is_alive=None, probe_ms=None)
    off = replace(HEALTH, provider="off", is_enabled=False, probe_problem="it refuses the key")
    rows = provider_rows(replace(WELL, health=(OPEN, never, off)))
    assert [row[:4] for row in rows] == [
        ("zai", "open (connect)", "no connection: Connection refused", "12345"),
        ("new", "closed", "-", "0"),
        ("off", "disabled", "alive, it refuses the key", "0"),
    ]
    assert health_rows((HEALTH,), {"zai": 3}) == [
        ("zai", "zai", "closed", "3", SINCE, "-", "alive 12.3 ms", SINCE, "-")
    ]
