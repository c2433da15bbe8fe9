"""Each check of tools/chaos finds what it is for: a history that keeps all promises passes, and one that breaks one does not."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos import answers, checks, plans
from chaos.history import (
    ANSWERED,
    COMPLETE,
    CUT,
    ERROR_EVENT,
    HUNG,
    REFUSED,
    WRONG,
    Arrival,
    Configuration,
    History,
    NodeLine,
    Record,
    Request,
    Span,
    Sums,
)
from chaos.load import judge

ADA, BEA, SMALL = (answers.secret(*one) for one in (("ada", "main", 0), ("bea", "main", 0), ("ada", "small", 0)))
TARGETS = [["ada", ADA], ["ada", SMALL], ["bea", BEA]]


def request(number: int, began_s: float, outcome: str = COMPLETE, node: str = "req_a", **more: object) -> Request:
    one = Request(number, "session", True, began_s, began_s + 0.1, began_s + 0.05, outcome, 200, node)
    one.request_id = f"{node}{number:08x}"
    return dataclasses.replace(one, **more)  # type: ignore[arg-type]


def arrival(number: int, at_s: float, key: str = BEA, mark: str = "g1", outcome: str = ANSWERED) -> Arrival:
    provider = key.split("-")[2]
    one = Arrival(number, provider, at_s, mark, f"{provider}-{mark}", key, at_s + 0.05, outcome)
    one.input_tokens, one.output_tokens = answers.usage(number)
    one.has_told_input = outcome in (ANSWERED, "reset in body", "late error")
    return one


def sound() -> History:
    """Two requests before a reload and one after it; the second of them moved on; a killed worker lost a fourth."""
    tokens = [answers.usage(number) for number in (1, 2, 3)]
    return History(
        seed=0,
        requests=[
            request(1, 10.0),
            request(2, 11.0),
            request(3, 12.0, node="req_b"),
            request(4, 13.0, CUT, node="req_b", head_s=0.0, status=0),
        ],
        arrivals=[
            arrival(1, 10.01),
            arrival(2, 11.01, ADA, outcome="500"),
            arrival(2, 11.03),
            arrival(3, 12.01, mark="g2"),
            arrival(4, 13.01, mark="g2", outcome="left"),
        ],
        spans=[Span("unwell", "ada", 10.9, 11.5, "500"), Span("killed", "worker-1 1", 13.09, 13.09)],
        configurations=[
            Configuration("g1", True, 0.0, TARGETS, 4, SMALL),
            Configuration("bad2", False, 11.5, TARGETS, 4, SMALL),
            Configuration("g2", True, 11.9, TARGETS, 4, SMALL),
        ],
        node_lines=[
            NodeLine("worker-0", 1, "snapshot_served", 1, 1.0),
            NodeLine("worker-0", 1, "snapshot_served", 2, 11.95),
            NodeLine("worker-1", 1, "snapshot_served", 1, 1.0),
            NodeLine("worker-1", 1, "snapshot_served", 2, 11.95),
            NodeLine("worker-1", 2, "snapshot_loaded", 2, 13.5),
        ],
        records=[Record("req_a00000001", "worker-0", 1, 1), Record("req_a00000002", "worker-0", 1, 1)],
        counted=Sums(3, 3, sum(one[0] for one in tokens), sum(one[1] for one in tokens)),
        instance_of={"req_a": "worker-0 1", "req_b": "worker-1 1"},
    )


Breaking = Callable[[History], object]


def older_version(history: History) -> None:
    history.node_lines.append(NodeLine("worker-0", 1, "snapshot_served", 1, 14.0))


def forgetful_successor(history: History) -> None:
    history.node_lines[-1].version = 1


def older_configuration_again(history: History) -> None:
    history.requests.append(request(5, 14.0, node="req_b"))
    history.arrivals.append(arrival(5, 14.01, mark="g1"))


def bad_configuration(history: History) -> None:
    history.arrivals[0].mark = "bad2"


def two_configurations(history: History) -> None:
    history.arrivals[2].mark, history.arrivals[2].model = "g2", "bea-g2"


def model_of_another_configuration(history: History) -> None:
    history.arrivals[0].model = "bea-g2"


def credential_of_another_configuration(history: History) -> None:
    history.arrivals[0].key = answers.secret("bea", "main", 1)


def answered_twice(history: History) -> None:
    history.arrivals[1].outcome = ANSWERED


def answered_by_nobody(history: History) -> None:
    history.arrivals[0].outcome = "left"


def hung(history: History) -> None:
    history.requests[0].outcome = HUNG


def another_answer(history: History) -> None:
    history.requests[0].outcome = WRONG


def never_asked(history: History) -> None:
    history.arrivals.append(arrival(99, 12.0))


def cut_without_a_kill(history: History) -> None:
    history.requests[0].outcome = CUT


def cut_by_another_workers_death(history: History) -> None:
    history.spans[1].subject = "worker-0 1"


def cut_long_after_the_kill(history: History) -> None:
    history.requests[3].ended_s += 5.0


def cut_on_a_new_connection_after_the_kill(history: History) -> None:
    history.requests[3].began_s += 0.5
    history.requests[3].ended_s += 0.5


def stream_ends_without_a_word(history: History) -> None:
    history.requests[1].outcome = CUT


def refused_with_a_way_left(history: History) -> None:
    history.requests[1].outcome, history.requests[1].status = REFUSED, 500
    del history.arrivals[2]


def refused_at_the_door(history: History) -> None:
    history.requests[1].outcome, history.requests[1].status = REFUSED, 429
    del history.arrivals[1:3]


def early_error_with_a_way_left(history: History) -> None:
    history.requests[1].outcome = ERROR_EVENT
    del history.arrivals[2]


def too_many(history: History) -> None:
    history.arrivals += [arrival(100 + n, 20.0 + n, SMALL) for n in range(5)]


def lost_usage(history: History) -> None:
    history.counted.input_tokens -= 1


def lost_request(history: History) -> None:
    history.counted.requests -= 1


def doubled_usage(history: History) -> None:
    history.counted = Sums(6, 6, history.counted.input_tokens * 2, history.counted.output_tokens * 2)


def leaked(history: History) -> None:
    history.leaks.append("canary in control.1.log")


def foreign_credential(history: History) -> None:
    history.arrivals[0].key = ADA


def client_key_upstream(history: History) -> None:
    history.arrivals[0].strange = "x-api-key holds a client's key"


def talkative_error(history: History) -> None:
    history.requests[0].outcome, history.requests[0].what = ERROR_EVENT, f"cannot use {ADA}"


def never_well_again(history: History) -> None:
    history.unhealed.append("not within 45 s: all processes run")


BREAKS: dict[Breaking, checks.Check] = {
    older_version: checks.versions_go_on,
    forgetful_successor: checks.versions_go_on,
    older_configuration_again: checks.marks_go_on,
    bad_configuration: checks.only_valid_is_served,
    two_configurations: checks.one_configuration,
    model_of_another_configuration: checks.one_configuration,
    credential_of_another_configuration: checks.one_configuration,
    answered_twice: checks.each_is_answered_once,
    answered_by_nobody: checks.each_is_answered_once,
    hung: checks.each_is_answered_once,
    another_answer: checks.each_is_answered_once,
    never_asked: checks.each_is_answered_once,
    cut_without_a_kill: checks.only_the_killed_lose,
    cut_by_another_workers_death: checks.only_the_killed_lose,
    cut_long_after_the_kill: checks.only_the_killed_lose,
    cut_on_a_new_connection_after_the_kill: checks.only_the_killed_lose,
    stream_ends_without_a_word: checks.broken_streams_end_properly,
    refused_with_a_way_left: checks.failures_had_no_way,
    refused_at_the_door: checks.failures_had_no_way,
    early_error_with_a_way_left: checks.failures_had_no_way,
    too_many: checks.limits_hold,
    lost_usage: checks.usage_is_counted_once,
    lost_request: checks.usage_is_counted_once,
    doubled_usage: checks.usage_is_counted_once,
    leaked: checks.nothing_leaks,
    foreign_credential: checks.credentials_stay_home,
    client_key_upstream: checks.credentials_stay_home,
    talkative_error: checks.errors_tell_nothing,
    never_well_again: checks.all_is_well_again,
}


def test_a_sound_history_breaks_nothing() -> None:
    """Else every seed would fail, or nobody would believe one that does."""
    assert checks.broken(sound()) == []


@pytest.mark.parametrize("breaking", BREAKS, ids=lambda breaking: breaking.__name__)
def test_a_broken_promise_is_found(breaking: Breaking) -> None:
    """A check that cannot fail would promise nothing."""
    history = copy.deepcopy(sound())
    breaking(history)

    assert BREAKS[breaking](history) != []


def test_every_check_is_tried() -> None:
    """Whoever adds one adds a history that breaks it."""
    assert set(BREAKS.values()) == set(checks.CHECKS)


def test_what_is_not_promised_is_not_held_against_anybody() -> None:
    """Usage of the last moments before a kill; requests with nowhere to go; a limit right after a worker's death."""
    history = sound()
    history.requests[1].outcome, history.requests[1].status = REFUSED, 500
    history.spans.append(Span("unwell", "bea", 10.9, 11.5, "refuses"))
    del history.arrivals[2]
    history.requests[2].ended_s = 12.9
    history.counted = Sums(2, 1, *answers.usage(1))  # of the third nobody had heard when its worker was killed
    history.arrivals += [arrival(3, 12.5 + n / 100, SMALL, "g2", "500") for n in range(5)]

    assert checks.broken(history) == []


def test_a_seed_is_one_plan() -> None:
    """A seed that failed is played again by its number."""
    assert [plans.episode(seed) for seed in range(50)] == [plans.episode(seed) for seed in range(50)]
    assert len({plans.episode(seed).faults for seed in range(50)}) > 45
    found = {fault.kind for seed in range(112) for fault in plans.episode(seed).faults}
    every = {*plans.PROCESS_FAULTS, *plans.LINK_FAULTS, *plans.PROVIDER_FAULTS, *plans.CONFIG_FAULTS}
    assert found == every, "what runs in CI has every kind of fault"


WHOLE = b"".join(answers.stream_events(7, 2, "ada", "g1"))
CUT_OFF = WHOLE[: WHOLE.index(b"content_block_delta") + 40]
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
ERROR = answers.error_event("api_error")


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (WHOLE, COMPLETE),
        (PING + WHOLE.replace(b"event: message_delta", PING + b"event: message_delta"), COMPLETE),
        (answers.stream_events(7, 2, "ada", "g1")[0] + ERROR, ERROR_EVENT),
        (CUT_OFF + b"\nevent: incomplete\n\n" + ERROR, ERROR_EVENT),
        (CUT_OFF + ERROR, WRONG),
        (WHOLE + WHOLE, WRONG),
        (WHOLE[:-1], WRONG),
        (b"".join(answers.stream_events(8, 2, "ada", "g1")), WRONG),
        (b"", WRONG),
    ],
)
def test_a_stream_is_judged_by_its_bytes(body: bytes, outcome: str) -> None:
    """Whole and right, or broken and said so; anything else is wrong."""
    asked = Request(7, "session", True, 0.0, status=200)
    judge(asked, body, 2)

    assert asked.outcome == outcome


def test_a_history_can_be_kept(tmp_path: Path) -> None:
    """What failed is looked at later."""
    history = sound()
    history.write(tmp_path / "history.jsonl")

    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert sum(line.startswith('{"requests"') for line in lines) == len(history.requests)
    assert any("killed worker-1 1" in line for line in history.last_events())
