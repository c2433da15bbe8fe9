"""One check for each promise of docs/chaos.md: what of a history breaks it? Pure; the tests feed each one a history that does.

A check returns sentences, each naming what happened. None: the promise was kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

from chaos import answers
from chaos.history import (
    ANSWERED,
    COMPLETE,
    CUT,
    ERROR_EVENT,
    HARNESS,
    HUNG,
    REFUSED,
    WRONG,
    Arrival,
    Configuration,
    History,
    Request,
    Span,
)

WINDOW_S = 60.0  # of a limit of requests per minute
LOST_WITHIN_S = 1.0  # a client learns of its worker's end so soon, on a busy machine
UNTOLD_S = 0.8  # usage that a killed worker may not have told: a quarter of a second, and a busy machine
UNTOLD_CUT_OFF_S = 2.5  # the same while it does not know yet that it is cut off
UNSAVED_S = 1.6  # a worker's use of limits that its successor may not know of: written once a second
UNSAVED_SNAPSHOT_S = 1.0  # a snapshot reaches the disk a moment after it is served
GIVEN_UP_AFTER_S = 1.2  # a provider that was asked so long before has been too slow: its timeouts are 1.5 s
EDGE_S = 0.15  # events of two processes that are closer than this have no order

Check = Callable[[History], list[str]]


def versions_go_on(history: History) -> list[str]:
    """What a node serves only gets newer; a successor begins at least with what was on disk."""
    found = []
    served: dict[str, list[tuple[int, int, float, str]]] = defaultdict(list)
    for line in history.node_lines:
        if line.event != "snapshot_rejected":
            served[line.node].append((line.process, line.version, line.at_s, line.event))
    damaged = {span.subject for span in history.of("damaged") if "snapshot" in span.detail}
    for node, lines in served.items():
        newest_of: dict[int, int] = {}
        for process, version, at_s, event in lines:
            before = newest_of.get(process, 0)
            if version <= before:
                found.append(f"{node} {process} served version {version} after {before}")
            newest_of[process] = max(before, version)
            if event == "snapshot_loaded" and node not in damaged:
                until_s = _died_s(history, node, process, at_s) - UNSAVED_SNAPSHOT_S
                saved = max((v for p, v, s, _ in lines if p < process and s < until_s), default=0)
                if version < saved:
                    found.append(f"{node} {process} began with version {version}, although {saved} had been served")
    return found


def _died_s(history: History, node: str, process: int, loaded_s: float) -> float:
    """When the one before was killed, if it was."""
    killed = [one.from_s for one in history.of("killed") if one.subject == f"{node} {process - 1}"]
    return min([loaded_s, *killed])


def marks_go_on(history: History) -> list[str]:
    """As clients see it: requests that one process takes one after another never go to an older configuration."""
    found = []
    order = {one.mark: place for place, one in enumerate(history.configurations)}
    newest: dict[str, tuple[int, Request]] = {}
    # The ids of a process are counted in the order in which it took the requests.
    for request in sorted(history.requests, key=lambda one: one.request_id):
        mark = next((one.mark for one in history.arrivals_of(request.number)), "")
        if not request.node or mark not in order:
            continue
        place, before = newest.get(request.node, (-1, request))
        if order[mark] < place:
            found.append(f"request {request.number} went by {mark} after request {before.number} of the same process")
        newest[request.node] = max((place, before), (order[mark], request), key=lambda one: one[0])
    return found


def only_valid_is_served(history: History) -> list[str]:
    """Nothing invalid or half-written ever decides about a request."""
    valid = {one.mark for one in history.configurations if one.is_valid}
    return [
        f"request {one.number} went to {one.provider} by configuration {one.mark!r}, which is not valid"
        for one in history.arrivals
        if one.mark not in valid
    ]


def one_configuration(history: History) -> list[str]:
    """All attempts of a request, and all that each of them says, come from one configuration."""
    by_mark = {one.mark: one for one in history.configurations}
    found = []
    for request in history.requests:
        arrivals = history.arrivals_of(request.number)
        if len({one.mark for one in arrivals}) > 1:
            found.append(f"request {request.number} went by {[one.mark for one in arrivals]}")
        for one in arrivals:
            targets = by_mark[one.mark].targets if one.mark in by_mark else []
            if one.model != f"{one.provider}-{one.mark}" or [one.provider, one.key] not in targets:
                found.append(f"request {request.number}: {one.model!r} with {one.key!r} is not of {one.mark}")
    return found


def each_is_answered_once(history: History) -> list[str]:
    """A request has one outcome in time, which is a provider's answer or an error; no provider answers it twice."""
    found = []
    for request in history.requests:
        if request.outcome in (HUNG, WRONG):
            found.append(f"request {request.number} ended {request.outcome}: {request.status} {request.what}")
        full = [one for one in history.arrivals_of(request.number) if one.outcome == ANSWERED]
        stopped = any(span.touches(request.began_s, request.ended_s) for span in history.of("stopped"))
        again = [two for one, two in pairwise(full) if two.at_s - one.at_s < GIVEN_UP_AFTER_S]
        if again and not stopped:  # what lay unread while its worker was stopped may have been too late
            found.append(f"request {request.number} was answered by {[one.provider for one in full]}")
        if request.outcome == COMPLETE and not full:
            found.append(f"request {request.number} has an answer that nobody gave")
    known = {request.number for request in history.requests}
    found += [f"request {one.number} was never asked" for one in history.arrivals if one.number not in known]
    return found


def only_the_killed_lose(history: History) -> list[str]:
    """A connection ends too early only where its worker was killed, or its provider broke an answer in one piece."""
    found = []
    killed = [span for span in history.of("killed") if not span.subject.startswith("control")]
    for request in history.requests:
        if request.outcome != CUT or _was_cut_by_provider(history, request):
            continue
        instance = history.instance_of.get(request.node)
        if not any(
            (instance is None or instance == span.subject)
            # A client may not have noticed yet that the connection it uses again is gone.
            and request.began_s <= span.from_s + (LOST_WITHIN_S if request.is_on_used_connection else EDGE_S)
            and request.ended_s >= span.from_s - EDGE_S
            and request.ended_s <= span.from_s + LOST_WITHIN_S + _stopped_s(history, span)
            for span in killed
        ):
            found.append(f"request {request.number} of {instance or 'an unknown worker'} broke off: {request.what}")
    return found


def _was_cut_by_provider(history: History, request: Request) -> bool:
    """An answer in one piece, and its beginning came."""
    last = history.arrivals_of(request.number)[-1:]
    return bool(
        not request.streamed
        and request.status == 200
        and last
        and last[0].outcome in ("reset in body", "stalls", "refuses", "left")
    )


def _stopped_s(history: History, killed: Span) -> float:
    stopped = [one for one in history.of("stopped") if one.subject in (killed.subject, HARNESS)]
    return max((one.to_s - one.from_s for one in stopped), default=0.0)


def failures_had_no_way(history: History) -> list[str]:
    """Before commit a request fails only if no target was left that could have served it.

    One whose circuit is open is not left, as long as there is another one; nor is one that has no room.
    """
    found = []
    by_mark = {one.mark: one for one in history.configurations}
    records = {one.request_id: one for one in history.records}
    mark_of = {
        record.version: arrivals[0].mark
        for request in history.requests
        if (record := records.get(request.request_id)) and (arrivals := history.arrivals_of(request.number))
    }
    for request in history.requests:
        if not _failed_before_content(request):
            continue
        arrivals, record = history.arrivals_of(request.number), records.get(request.request_id)
        if len(arrivals) >= history.max_attempts or request.ended_s - request.began_s > history.failover_s:
            continue
        mark = arrivals[0].mark if arrivals else mark_of.get(record.version, "") if record is not None else ""
        if mark not in by_mark:
            continue
        shut = (
            {one.split(":")[0].split("/")[0] for one in record.passed_over if "circuit open" in one}
            if record
            else set()
        )
        ways = [
            one for one in _untried_ways(history, request, by_mark[mark], arrivals) if one.split("-")[2] not in shut
        ]
        if ways:
            tried = [f"{one.provider}: {one.outcome}" for one in arrivals]
            found.append(
                f"request {request.number} failed ({request.status} {request.what}) with {ways} untried after {tried}"
            )
    return found


def _failed_before_content(request: Request) -> bool:
    """An answer in one piece has content when it is whole."""
    if request.outcome == CUT:
        return not request.streamed and request.status == 200
    return request.outcome == REFUSED or (request.outcome == ERROR_EVENT and not request.has_content)


def _untried_ways(
    history: History, request: Request, configuration: Configuration, arrivals: list[Arrival]
) -> list[str]:
    """Targets that were well all the time, and had not been tried."""
    from_s, to_s = request.began_s - EDGE_S, request.ended_s + EDGE_S
    tried = {one.key for one in arrivals}
    bad = {span.subject for span in history.of("unwell", "disabled", "revoked") if span.touches(from_s, to_s)}
    return [
        key
        for provider, key in configuration.targets
        if provider not in bad and key not in bad and key not in tried and key != configuration.limited_key
    ]


def broken_streams_end_properly(history: History) -> list[str]:
    """After commit a broken stream ends in an error event, unless its worker was killed."""
    found = []
    lost = set(only_the_killed_lose(history))
    for request in history.requests:
        if request.streamed and request.outcome == CUT and request.head_s and lost:
            found.append(f"stream {request.number} ended without a word: {request.what}")
    return found


def limits_hold(history: History) -> list[str]:
    """An account gets no more requests in any minute than it allows.

    On top of it may come what a worker had just sent when it was killed: its successor begins with what was written down, once a
    second.
    """
    found = []
    limits = {one.limited_key: one.rpm_limit for one in history.configurations if one.limited_key}
    times: dict[str, list[float]] = defaultdict(list)
    for one in history.arrivals:
        if one.key in limits:
            times[one.key].append(one.at_s)
    unsaved = [
        (span.from_s - UNSAVED_S, span.to_s) for span in history.of("killed") if span.subject.startswith("worker")
    ]
    damaged = any("budgets" in span.detail for span in history.of("damaged"))
    for key, at in times.items():
        at.sort()
        most = max(sum(first <= one < first + WINDOW_S for one in at) for first in at)
        slack = min(sum(any(a <= one <= b for a, b in unsaved) for one in at), limits[key] * len(unsaved))
        if most > limits[key] + slack and not damaged:
            found.append(f"{key} got {most} requests in a minute, and allows {limits[key]}; slack {slack}")
    return found


def usage_is_counted_once(history: History) -> list[str]:
    """The ledger grows by what providers answered: all that was told or on disk, and nothing twice."""
    least, most = least_counted(history), _most(history)
    found = []
    for name in ("requests", "served", "input_tokens", "output_tokens"):
        counted = getattr(history.counted, name)
        if counted > most[name]:
            found.append(f"{counted} {name} are counted, but there were at most {most[name]}")
        if counted < least[name] and history.is_ledger_whole:
            found.append(f"{counted} {name} are counted, but there were at least {least[name]}")
    return found


def least_counted(history: History) -> Mapping[str, int]:
    """What the ledger must have grown by: nothing of it may have died with a worker."""
    sums = dict.fromkeys(("requests", "served", "input_tokens", "output_tokens"), 0)
    for request in history.requests:
        if request.outcome not in (COMPLETE, REFUSED, ERROR_EVENT) or _is_untold(history, request):
            continue
        if request.outcome == REFUSED and not history.arrivals_of(request.number):
            continue  # at the door, perhaps
        sums["requests"] += 1
        if request.outcome == COMPLETE:
            sums["served"] += 1
            for name, tokens in zip(("input_tokens", "output_tokens"), answers.usage(request.number), strict=True):
                sums[name] += tokens
    return sums


def _most(history: History) -> Mapping[str, int]:
    """All that may be: what was not answered whole may have told some of its usage, and may count as served."""
    sums = dict.fromkeys(("requests", "served", "input_tokens", "output_tokens"), 0)
    for request in history.requests:
        sums["requests"] += 1
        has_told = any(one.has_told_input for one in history.arrivals_of(request.number))
        may_be_served = request.outcome == COMPLETE or (request.outcome == CUT and has_told)
        sums["served"] += may_be_served
        if has_told:
            for name, tokens in zip(("input_tokens", "output_tokens"), answers.usage(request.number), strict=True):
                sums[name] += tokens
    return sums


def _is_untold(history: History, request: Request) -> bool:
    """Whether its record may have died with its worker."""
    instance = history.instance_of.get(request.node)
    for span in history.of("killed"):
        if span.subject.startswith("control") or (instance is not None and instance != span.subject):
            continue
        stopped_s = _stopped_s(history, span)
        node = span.subject.split(" ")[0]
        away = [one for one in history.of("cut off") if one.subject == node]
        away += [
            one for one in history.of("killed", "stopped", "damaged", "fault") if one.subject.startswith("control")
        ]
        is_away = any(one.touches(span.from_s - 6.0, span.from_s + EDGE_S) for one in away)
        untold_s = (UNTOLD_CUT_OFF_S if is_away else UNTOLD_S) + stopped_s
        if -EDGE_S <= span.from_s - request.ended_s + EDGE_S <= untold_s + EDGE_S:
            return True
    return False


def nothing_leaks(history: History) -> list[str]:
    """No text of a conversation, and no credential, is where it must not be."""
    return [f"found {one}" for one in history.leaks]


def credentials_stay_home(history: History) -> list[str]:
    """A provider is sent its own credential only, and nothing of the client's."""
    found = []
    for one in history.arrivals:
        if not one.key.startswith(f"{answers.SECRET.decode()}{one.provider}-"):
            found.append(f"{one.provider} was sent {one.key!r} with request {one.number}")
        if one.strange:
            found.append(f"{one.provider} was sent request {one.number}: {one.strange}")
    return found


def errors_tell_nothing(history: History) -> list[str]:
    """The relay's own errors hold no text and no credential."""
    words = [*(word.decode() for word in answers.TEXTS), answers.CLIENT_KEY, answers.SECRET.decode()]
    return [
        f"the error of request {one.number} holds {word}"
        for one in history.requests
        if one.outcome in (REFUSED, ERROR_EVENT)
        for word in words
        if word in one.what
    ]


def all_is_well_again(history: History) -> list[str]:
    """When the faults are over everything comes back by itself."""
    return list(history.unhealed)


CHECKS: tuple[Check, ...] = (
    versions_go_on,
    marks_go_on,
    only_valid_is_served,
    one_configuration,
    each_is_answered_once,
    only_the_killed_lose,
    failures_had_no_way,
    broken_streams_end_properly,
    limits_hold,
    usage_is_counted_once,
    nothing_leaks,
    credentials_stay_home,
    errors_tell_nothing,
    all_is_well_again,
)


def broken(history: History, checks: Iterable[Check] = CHECKS) -> list[str]:
    """What of a history breaks a promise, each with the check's name."""
    return [f"{check.__name__}: {one}" for check in checks for one in check(history)]
