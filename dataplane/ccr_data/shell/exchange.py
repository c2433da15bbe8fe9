"""One request on its way: attempt, hold, commit, relay, account. A state machine driven by the two connections' callbacks.

Nothing here waits, and nothing decides: targets come ordered from core/routing.py, verdicts from core/answers.py and core/sse.py,
bytes from core/framing.py. The states of an attempt:

- `WAITING`: sent (or connecting), no head yet;
- `HOLDING`: a stream has begun but no content, and another target is left: kept back, so that it can still move on;
- `CHECKING`: a 400 that may be about thinking blocks; kept until it is whole, then mended (shell/mending.py) or passed on as it came;
- `COLLECTING`: an answer that moves on to the next target; kept in case it turns out to be the best there is;
- `RELAYING`: committed; every byte goes on at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable
from time import perf_counter, time
from typing import TYPE_CHECKING

from ccr_data.core import answers
from ccr_data.core.budget import Reservation
from ccr_data.core.client_limits import ClientPart
from ccr_data.core.conversation import name_of
from ccr_data.core.errors import CredentialsExpired, RequestError
from ccr_data.core.framing import (
    LAST_CHUNK,
    Body,
    chunk,
    client_head,
    gathered,
    is_event_end,
    missing_end,
    own_base_url,
    with_own_results_url,
)
from ccr_data.core.http1 import AnswerHead
from ccr_data.core.limit_headers import MARK
from ccr_data.core.matching import offers_tools
from ccr_data.core.pins import SessionKey, worth_waiting_s
from ccr_data.core.records import AttemptRecord, Endpoint, Outcome, PinUse, Reason, Record
from ccr_data.core.routing import after_failure
from ccr_data.core.snapshot import Snapshot, Target
from ccr_data.core.sse import Beginning, ends_in_error, is_without_content, note_json_usage
from ccr_data.core.thinking import MAX_ANSWER_BYTES
from ccr_data.core.waiting import BACKGROUND, MAIN, SUBAGENT, QueueRules
from ccr_data.providers import clouds
from ccr_data.providers.adapter import ClientRequest
from ccr_data.providers.anthropic_shaped import prepare
from ccr_data.shell.answering import (
    CHECKING,
    COLLECTING,
    HOLDING,
    OVER,
    PAYLOAD,
    RELAYING,
    UNTIL_CLOSE,
    VERBATIM,
    WAITING,
    Answering,
)
from ccr_data.shell.budgeting import ORGANISATION
from ccr_data.shell.cloud_connection import CloudConnection
from ccr_data.shell.mending import Mending, Pieces, adjusted, fitted, payload_of
from ccr_data.shell.renewal import Renewal, is_renewable
from ccr_data.shell.rival import Rival

if TYPE_CHECKING:
    from ccr_data.shell.cloud_connection import Upstream
    from ccr_data.shell.http_server import ClientConnection
    from ccr_data.shell.relay import Relay
    from ccr_data.shell.upstream import UpstreamConnection

MAX_HELD_BYTES = 256 << 10
MAX_COLLECTED_BYTES = 1 << 20
MAX_REWRITTEN_BYTES = 16 << 20
MAX_ID_CHARS = 256  # of a provider's own id for a request, which goes to logs and records
COLLECTING_LIMIT_S = 2.0  # for the rest of an answer that nobody may ever see
NEVER_S = math.inf
TIMER_SLACK_S = 0.01  # timers may fire a millisecond early
SUBSCRIPTION_LABEL = "subscription"

# Looked up as globals: reaching an enum's member through its class takes ten times as long on Python 3.11.
SERVED, FAILED, BROKEN = Outcome.SERVED, Outcome.FAILED, Outcome.BROKEN
KEPT = PinUse.KEPT
MESSAGES = Endpoint.MESSAGES
_HOMED = (Endpoint.BATCHES, Endpoint.FILES)
_BROKE = {
    Reason.IDLE_TIMEOUT: "fell silent",
    Reason.TOTAL_TIMEOUT: "did not finish in time",
    Reason.STOPPED: "was cut off, because the relay is stopping or starting anew",
}
_WENT_ON = (Reason.CLIENT_LEFT, Reason.STOPPED)  # the provider was at work, and may have it paid


class Exchange(Answering):
    """One request, from its routing to its record."""

    __slots__ = (
        "_attempt",
        "_beginning",
        "_client_part",
        "_connecting",
        "_ends_s",
        "_hedge_s",
        "_held",
        "_held_size",
        "_is_rewritten",
        "_is_stale_retry",
        "_loaded",
        "_mending",
        "_part",
        "_pool",
        "_refused",
        "_rival",
        "_targets",
        "session",
    )

    def __init__(
        self,
        relay: Relay,
        client: ClientConnection,
        request: ClientRequest,
        snapshot: Snapshot,
        record: Record,
        targets: list[Target],
        *,
        session: SessionKey = b"",
        is_rewritten: bool = False,
        client_part: ClientPart | None = None,
    ) -> None:
        super().__init__(relay, client, request, snapshot, record, targets[0])
        self.session = session  # empty: not known
        self._client_part = client_part  # of the client's own limits, if it has any
        self._targets = targets
        self._is_rewritten = is_rewritten  # a batch, whose results_url is to lead back here
        self._connecting: asyncio.Task[None] | asyncio.TimerHandle | Renewal | None = None
        self._loaded: Target | None = None  # whose open requests this one is among
        self._attempt: AttemptRecord | None = None
        self._is_stale_retry = False
        self._held: Pieces = []  # kept back, with where their payload is
        self._held_size = 0
        self._beginning: Beginning | None = None
        self._refused: tuple[AnswerHead, bytes, Target] | None = None  # the newest answer that moved on
        self._part: Reservation | None = None  # of the budget of the current attempt's account
        self._pool: list[Target] = []  # what has been tried so far
        self._rival: Rival | None = None  # a second attempt beside this one
        self._hedge_s = NEVER_S  # when to begin one
        self._ends_s = NEVER_S  # when the attempt must be over
        self._mending: Mending | None = None  # since a provider refused thinking blocks

    # --- attempts -------------------------------------------------------------------------------------------------

    def start(self, wait_s: float = 0.0) -> None:
        """Send the request to the first target, after a wait if that is cooling down."""
        self._relay.exchanges.add(self)
        if wait_s:
            self._wait(wait_s, self._target)
        else:
            self._next_attempt()

    def _wait(self, wait_s: float, home: Target) -> None:
        """Wait for the session's home before the first attempt. That is no time of the relay's own, nor of the provider's."""
        self.record.queued_s = wait_s
        self.record.overhead_s = perf_counter() - self._began_s
        self._deadline_s = self._relay.clock_s + wait_s + home.provider.timeouts.first_byte_s
        self._connecting = asyncio.get_running_loop().call_later(wait_s, self._waited)

    def _waited(self) -> None:
        self._connecting = None
        if self._state is not OVER:
            self._next_attempt()

    def _next_attempt(self, *, only_fresh: bool = False, is_chosen: bool = False) -> None:
        """Try the next target; with `only_fresh` the same one again, as its kept-alive connection turned out to be dead."""
        request = self._request
        assert request is not None
        if not only_fresh:
            if not is_chosen and not self._choose(request):
                if self._connecting is None:
                    self._no_room()
                return
            target = self._target
            load = self._relay.node.load
            if self._loaded is not None:
                load.leave(self._loaded)
            load.enter(target)
            self._loaded = target
            attempts = self.record.attempts
            self._ends_s = NEVER_S
            is_late = attempts or self.record.queued_s
            self._attempt = self._noted(target, request, perf_counter() if is_late else self._began_s)
            if target.provider.timeouts.total_s != NEVER_S:
                self._ends_s = self._relay.clock_s + target.provider.timeouts.total_s
        self._is_stale_retry = only_fresh
        self._state = WAITING
        self._head = None
        provider = self._target.provider
        connection = None if only_fresh else self._relay.pool.take(provider.origin)
        if connection is not None:
            self._send(connection, request)
        else:
            timeouts = provider.timeouts
            self._deadline_s = self._relay.clock_s + timeouts.connect_s + timeouts.first_byte_s
            self._connecting = self._relay.pool.connect(provider.origin, timeouts.connect_s, self._connected)

    def _noted(self, target: Target, request: ClientRequest, now_s: float) -> AttemptRecord:
        """A new attempt, in the record."""
        attempt = AttemptRecord(
            target.provider.name,
            SUBSCRIPTION_LABEL if request.own_token else target.label,
            target.scope[1],
            target.model or self.record.model_asked,
            now_s,
        )
        self.record.attempts.append(attempt)
        return attempt

    def _is_limited(self, target: Target) -> bool:
        """Whether rate limits of an account of the relay's are what such an attempt counts in."""
        return target.key is not None and self.record.endpoint is MESSAGES

    def _choose(self, request: ClientRequest) -> bool:
        """Take the first target that has room; whether there is one."""
        budgeting, targets = self._relay.budgeting, self._targets
        at = 0
        if budgeting.limits.is_active and self._is_limited(targets[0]):
            if self._relay.waiting.is_busy and self._is_behind_others(targets):
                return False
            at, self._part = budgeting.choose(targets, self.record.model_asked, len(request.body), perf_counter())
            if at and self._waits_at_home(request):
                return False
            if at and self.record.decision is not None:
                full = targets if at < 0 else targets[:at]
                self.record.decision.passed_over += [(f"{one.provider.name}/{one.label}", "no room") for one in full]
            if at < 0:
                return False
        self._target = targets.pop(at)
        self._pool.append(self._target)
        return True

    def _waits_at_home(self, request: ClientRequest) -> bool:
        """Whether the session's home, which has no room, is to be waited for, once: there its prompt is cached."""
        decision, now_s = self.record.decision, perf_counter()
        if decision is None or decision.pin is not KEPT or self.record.attempts or self.record.queued_s:
            return False
        size = len(request.body)
        wait_s = self._relay.budgeting.room_in_s(self._targets[0], self.record.model_asked, size, now_s)
        if not 0.0 < wait_s <= worth_waiting_s(size):
            return False
        wait_s += TIMER_SLACK_S
        part, self._part = self._part, None
        if part is not None:
            part.refund(now_s, is_sent=False)
        self._wait(wait_s, self._targets[0])
        return True

    def _no_room(self) -> None:
        """All that is left to try is at its rate limit."""
        attempts, request = self.record.attempts, self._request
        if attempts:
            self._give_up(attempts[-1].reason or Reason.RATE_LIMITED)
            return
        assert request is not None
        rules = self._snapshot.relay.queue
        if rules is not None and self._waits(request, rules):
            return
        self._say_no_room(request)

    def _say_no_room(self, request: ClientRequest) -> None:
        model, now_s = self.record.model_asked, perf_counter()
        at = self._relay.budgeting.unlimited(self._targets, model)
        if at >= 0:  # since a moment ago, or the queue was full and had not asked
            self._target = self._targets.pop(at)
            self._pool.append(self._target)
            self._next_attempt(is_chosen=True)
            return
        answer = self._relay.budgeting.no_room(self._targets, model, len(request.body), now_s)
        self.record.outcome = FAILED
        self._send_error(429, "rate_limit_error", answer.message, answer.lines)
        self._finish(closes=False)

    def _connected(self, connection: UpstreamConnection | None) -> None:
        self._connecting = None
        request = self._request
        if self._state is not WAITING or request is None:
            if connection is not None:
                self._relay.pool.give_back(connection)
            return
        if connection is None:
            self._fail(Reason.CONNECT)
        else:
            if self._part is not None:
                self._part.sent(perf_counter())
            self._send(connection, request)

    def _send(self, connection: UpstreamConnection, request: ClientRequest) -> None:
        target = self._target
        upstream: Upstream = connection
        try:
            fitted_request = self._fitted(request, target)
            if target.is_cloud:
                upstream = CloudConnection(connection, fitted_request, target)
                upstream_request = clouds.prepare(fitted_request, target, time())
            else:
                upstream_request = prepare(fitted_request, target)
        except CredentialsExpired:
            self._relay.pool.give_back(connection)
            self._fail(Reason.KEY_REFUSED)
            return
        except RequestError as error:
            self._relay.pool.give_back(connection)
            self._refuse(error)
            return
        self._upstream = upstream
        upstream.send(self, request.head.method, upstream_request)
        self._deadline_s = self._relay.clock_s + target.provider.timeouts.first_byte_s
        if not self.record.overhead_s:
            self.record.overhead_s = perf_counter() - self._began_s

    def _fitted(self, request: ClientRequest, target: Target) -> ClientRequest:
        """The request without the thinking blocks that the target cannot verify, and fit for its generation of models."""
        marks = frozenset[bytes]()
        if self.session:
            marks = self._relay.foreign_thinking(self.session, target, self.record.model_asked, request.body)
        mending = self._mending
        if mending is not None and mending.target is target:
            marks |= mending.marks
        if marks:
            request = fitted(request, marks)
        return adjusted(request, target.generation) if target.generation is not None else request

    def _has_alternative(self) -> bool:
        """Whether another attempt may begin, or has."""
        if self._rival is not None:
            return True
        policy = self._snapshot.relay
        return (
            bool(self._targets)
            and len(self.record.attempts) < policy.max_attempts
            and perf_counter() - self._began_s - self.record.queued_s < policy.failover_timeout_s
        )

    def _fail(self, reason: Reason) -> None:
        """The attempt is not the answer: move on, or give up."""
        self._end_attempt(reason)
        self._targets = after_failure(self._targets, self._target, reason)
        self._drop_held()
        if self._rival is not None:
            self._take_over(self._rival)
        elif self._has_alternative():
            self._next_attempt()
        elif self._may_be_renewed(reason):
            self._state = WAITING
            self._deadline_s = NEVER_S  # the renewal has a limit of its own
            self._connecting = Renewal(self._relay.store, self._target, self._renewed)
        elif reason is Reason.NOT_THERE and (failed := self._failed_elsewhere()) and failed.reason:
            self._give_up(failed.reason, failed.provider)
        else:
            self._give_up(reason)

    def _may_be_renewed(self, reason: Reason) -> bool:
        """Whether the target's credential was refused, for the first time, and a newer one may come."""
        target = self._target
        if reason is not Reason.KEY_REFUSED or not is_renewable(target) or self._request is None:
            return False
        key = (target.provider.name, target.label)
        return [(one.provider, one.key_label) for one in self.record.attempts].count(key) == 1

    def _renewed(self, target: Target | None) -> None:
        """The same target with a newer credential; None: there was none in time."""
        self._connecting = None
        if self._state is OVER:
            return
        if target is None:
            if self._attempt is not None:  # it was waited for
                self._attempt.total_s = perf_counter() - self._attempt.began_s
            self._give_up(Reason.KEY_REFUSED)
            return
        self._targets.insert(0, target)
        self._next_attempt()

    def _end_attempt(self, reason: Reason | None) -> None:
        self._detach()
        attempt = self._attempt
        assert attempt is not None
        now_s = perf_counter()
        attempt.reason = reason
        attempt.total_s = now_s - attempt.began_s
        part = self._part
        is_unserved = self._state is not RELAYING or self.record.status != 200
        if part is not None and is_unserved and reason is not None and reason not in _WENT_ON:
            self._part = None
            part.refund(now_s, is_sent=reason is not Reason.CONNECT)
            self._relay.waiting.wake()
        if reason is not None and reason is not Reason.CLIENT_LEFT:
            cooldown_s = self._snapshot.relay.cooldown_s
            self._relay.note_failure(self._target, reason, self._head, cooldown_s, now_s, self.record.endpoint)

    def _detach(self) -> None:
        """Hang up on the upstream at once if it is still at work, also while it is silent."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None

    # --- waiting for room (shell/waiting_room.py) -----------------------------------------------------------------

    def _is_behind_others(self, targets: list[Target]) -> bool:
        """Whether the request is to queue up without looking for room: others were here before."""
        if self.record.attempts or self._snapshot.relay.queue is None:
            return False
        self._relay.budgeting.note_asked(targets, self.record.model_asked, perf_counter())
        return True

    def _waits(self, request: ClientRequest, rules: QueueRules) -> bool:
        """Whether the request has a place in the queue, or had and is on its way."""
        relay, record, now_s = self._relay, self.record, perf_counter()
        if relay.budgeting.sure_wait_s(self._targets, record.model_asked, now_s) > rules.max_wait_s:
            return False
        rank = SUBAGENT if record.agent else MAIN if offers_tools(request.body) else BACKGROUND
        session = record.session or name_of(request.body, record.client) or record.request_id
        lane = frozenset((target.scope, target.model) for target in self._targets)
        record.overhead_s = now_s - self._began_s
        self._deadline_s = NEVER_S  # the queue's own holds
        return relay.waiting.enter(self, rules, f"{record.client}\n{session}", rank, (record.model_asked, lane))

    def take_room(self, awaited: set[Hashable], now_s: float) -> float:
        """Take room for the first attempt, but not where others wait before (core/waiting.py, Take)."""
        request, targets = self._request, self._targets
        assert request is not None
        at, self._part, wait_s = self._relay.budgeting.choose_in_turn(
            targets, self.record.model_asked, len(request.body), now_s, awaited
        )
        if at >= 0:
            self._target = targets.pop(at)
            self._pool.append(self._target)
        return wait_s

    def room_found(self, waited_s: float) -> None:
        """The room is taken: try the target that it is for."""
        self.record.queued_s = waited_s
        self._next_attempt(is_chosen=True)

    def turned_away(self, waited_s: float) -> None:
        """No room came in time, or others went before."""
        self.record.queued_s = waited_s
        request = self._request
        assert request is not None
        self._say_no_room(request)

    # --- a second attempt beside a slow one -----------------------------------------------------------------------

    def hedge(self, after_s: float) -> None:
        """Try a second target if there is no content after so long."""
        self._hedge_s = self._relay.clock_s + after_s

    def _begin_rival(self) -> None:
        request, relay = self._request, self._relay
        if (
            request is None
            or self._state not in (WAITING, HOLDING)
            or self._rival is not None
            or self._attempt is None
            or relay.waiting.is_busy  # others have more need of the room
            or not self._targets
            or not self._has_alternative()
            or not relay.hedges.take()
        ):
            return
        targets = after_failure(self._targets, self._target, Reason.FIRST_BYTE_TIMEOUT)
        now_s, at, part = perf_counter(), 0, None
        if relay.budgeting.limits.is_active and self._is_limited(targets[0]):
            at, part = relay.budgeting.choose(targets, self.record.model_asked, len(request.body), now_s)
            if at < 0:
                return
        target = targets[at]
        self._targets.remove(target)
        self._pool.append(target)
        relay.node.load.enter(target)
        self._rival = Rival(self, target, self._noted(target, request, now_s), part)
        self._rival.start(relay.pool)

    def send_for(self, rival: Rival, connection: UpstreamConnection) -> bool:
        """Send the request to the rival's target; whether that can be done."""
        request = self._request
        try:
            if request is not None:
                fitted_request, target = self._fitted(request, rival.target), rival.target
                if target.is_cloud:
                    rival.connection = CloudConnection(connection, fitted_request, target)
                    rival.connection.send(rival, request.head.method, clouds.prepare(fitted_request, target, time()))
                else:
                    connection.send(rival, request.head.method, prepare(fitted_request, target))
                return True
        except RequestError:
            pass
        return False

    def connected(self, rival: Rival, connection: UpstreamConnection | None) -> None:
        """A rival that was taken over while it connected has its connection, or gets none."""
        if rival.attempt is self._attempt:
            self._connected(connection)
        elif connection is not None:
            self._relay.pool.give_back(connection)

    def overtaken(self, rival: Rival) -> None:
        """The rival has content first."""
        self._end_attempt(Reason.HEDGED)
        self._drop_held()
        self._take_over(rival)
        self._release()

    def rival_lost(self, rival: Rival, reason: Reason) -> None:
        """The rival is not the answer; the first attempt goes on."""
        self._rival = None
        now_s = perf_counter()
        attempt = rival.attempt
        attempt.reason = reason
        attempt.total_s = now_s - attempt.began_s
        self._relay.node.load.leave(rival.target)
        if rival.part is not None:
            rival.part.refund(now_s, is_sent=reason is not Reason.CONNECT)
            self._relay.waiting.wake()
        self._relay.note_failure(rival.target, reason, rival.head, self._snapshot.relay.cooldown_s, now_s)

    def _take_over(self, rival: Rival) -> None:
        """From here on the rival's attempt is this exchange's own."""
        relay, self._rival, rival.is_over = self._relay, None, True
        if self._loaded is not None:
            relay.node.load.leave(self._loaded)
        self._target = self._loaded = rival.target
        self._attempt, self._part = rival.attempt, rival.part
        self._head, self._body = rival.head, rival.body
        self._held, self._held_size, self._beginning = rival.held, rival.held_size, rival.beginning
        self._is_stale_retry = True
        timeouts = rival.target.provider.timeouts
        self._ends_s = rival.attempt.began_s + timeouts.total_s
        if rival.head is None:
            self._state = WAITING
            self._deadline_s = relay.clock_s + timeouts.first_byte_s
        else:
            self._state = HOLDING
            self._deadline_s = relay.clock_s + timeouts.idle_s
        self._connecting = rival.connecting
        self._upstream, rival.connection = rival.connection, None
        if self._upstream is not None:
            self._upstream.consumer = self
            self._walker = self._upstream.walker

    def _drop_rival(self) -> None:
        rival = self._rival
        if rival is not None:
            rival.hang_up()
            self.rival_lost(rival, Reason.HEDGED)

    # --- the end of attempts -------------------------------------------------------------------------------------

    def _give_up(self, reason: Reason, provider: str = "") -> None:
        """Nothing is left to try. `provider`: whose failure it is, if not the last one's."""
        self.record.outcome = FAILED
        if self._refused is not None and not self._has_begun:
            head, body, self._target = self._refused
            if head.status == 429 and self._is_limited(self._target) and self._request is not None:
                self._relay.budgeting.heed_pool(
                    head,
                    self._pool + self._targets,
                    self.record.model_asked,
                    len(self._request.body),
                    perf_counter(),
                )
            self._send_whole(head, body)
        elif self._refused is not None and (event := answers.as_error_event(self._refused[1])):
            self._write(chunk(event) + LAST_CHUNK)
        else:
            name, count = provider or self._target.provider.name, len(self.record.attempts)
            self._send_error(*answers.no_answer(reason, name, count), self._own_lines())
        self._finish(closes=False)

    def _refuse(self, error: RequestError) -> None:
        """The adapter will not send this; nothing went upstream."""
        if self._attempt is not None:
            self.record.attempts.remove(self._attempt)
        self.record.outcome = Outcome.REFUSED
        self.record.status = answers.status_of(error)[0]
        self._client.write(answers.refusal(error, self.record.request_id, closes=self._client.is_closing_after))
        self._finish(closes=False)

    # --- what the upstream says -----------------------------------------------------------------------------------

    def head_received(self, head: AnswerHead, body: Body) -> None:
        """The upstream's answer begins: is it the answer?"""
        now_s = perf_counter()
        attempt = self._attempt
        assert attempt is not None
        attempt.status = head.status
        attempt.first_byte_s = now_s - attempt.began_s
        self._head, self._body = head, body
        self._walker = self._upstream.walker if self._upstream is not None else None
        self._deadline_s = self._relay.clock_s + self._target.provider.timeouts.idle_s
        reason = answers.judge(head.status, is_own_key=self._target.key is not None)
        if head.status == 404 and self._may_be_elsewhere():
            reason = Reason.NOT_THERE
        is_stream = head.is_event_stream
        is_limited = self._is_limited(self._target)
        if is_limited and (MARK in head.special or ORGANISATION in head.special):
            self._relay.budgeting.note_head(self._target, self.record.model_asked, head, self._part, now_s)
        if (
            (reason is not None and (self._has_alternative() or self._has_begun or self._may_be_renewed(reason)))
            or (is_limited and reason is Reason.RATE_LIMITED)  # the whole pool may have a better time to tell
            or reason is Reason.NOT_THERE
            or self._is_rewritten
            or (self._has_begun and not is_stream)
        ):
            self._collect()
        elif reason is None and head.status >= 400 and not is_stream and self._may_be_mended(head):
            self._state = CHECKING
            self._deadline_s = self._relay.clock_s + COLLECTING_LIMIT_S
        elif (
            reason is None
            and (is_stream or (head.status == 200 and b"content-encoding" not in head.special))  # it may hide a stream
            and self._has_alternative()
        ):
            self._state = HOLDING
            self._beginning = Beginning() if is_stream else None  # what is no stream is the answer when it is whole
        else:
            self._commit(now_s)

    # The shortcut of the request path: a usual answer that came in one read goes to the client in one write. It does what
    # head_received, body_received and answer_ended come to for such an answer, in a third of the time.

    def takes_whole(self, head: AnswerHead) -> bool:
        """Whether there is nothing to decide about an answer."""
        return (
            head.status == 200
            and self._state is WAITING
            and not head.is_event_stream
            and not self._has_begun
            and not self._is_rewritten
            and self._rival is None
            and self._mending is None
            and b"content-encoding" not in head.special
        )

    def whole_received(self, head: AnswerHead, body: bytes) -> None:
        """A usual answer, whole."""
        now_s = perf_counter()
        attempt, record, relay, client = self._attempt, self.record, self._relay, self._client
        assert attempt is not None
        self._upstream = None
        self._head = head
        attempt.status = record.status = 200
        attempt.first_byte_s = attempt.total_s = now_s - attempt.began_s
        record.first_byte_s = now_s - self._began_s
        if (MARK in head.special or ORGANISATION in head.special) and self._is_limited(self._target):
            relay.budgeting.note_head(self._target, record.model_asked, head, self._part, now_s)
        if record.decision is not None:
            relay.note_first_token(record, self._target, 200, attempt.total_s, now_s)
        closes = client.is_closing_after
        client.write(client_head(head, Body.LENGTH, VERBATIM, self._own_lines(), closes=closes) + body)
        self._answer_size = len(body)
        note_json_usage(record.tokens, body)
        record.outcome = SERVED
        self._finish(closes=False)

    def _may_be_elsewhere(self) -> bool:
        """Whether what a request names, a batch or a file, may live in another account (core/homes.py)."""
        if self.record.endpoint not in _HOMED:
            return False
        return self._has_alternative() or self._failed_elsewhere() is not None

    def _failed_elsewhere(self) -> AttemptRecord | None:
        """An attempt that says nothing about what lives there."""
        return next((one for one in self.record.attempts if one.reason not in (None, Reason.NOT_THERE)), None)

    def _collect(self) -> None:
        self._state = COLLECTING
        if not self._is_rewritten:
            self._deadline_s = self._relay.clock_s + COLLECTING_LIMIT_S

    def body_received(self, data: bytes, ranges: list[tuple[int, int]]) -> None:
        """A piece of the answer's body."""
        state = self._state
        if state is RELAYING:
            self._relay_piece(data, ranges)
        elif state is HOLDING:
            self._hold(data, ranges)
        elif state is CHECKING:
            self._keep(data, ranges)
            if self._held_size > MAX_ANSWER_BYTES:
                self._checked(is_whole=False)
        elif state is COLLECTING:  # only its payload is of use
            self._keep(*gathered(data, ranges))
            if self._held_size > (MAX_REWRITTEN_BYTES if self._is_rewritten else MAX_COLLECTED_BYTES):
                self._detach()
                self._collected(is_whole=False)

    def _keep(self, data: bytes, ranges: list[tuple[int, int]]) -> None:
        self._held.append((data, ranges))
        self._held_size += len(data)

    def _drop_held(self) -> Pieces:
        held, self._held, self._held_size, self._beginning = self._held, [], 0, None
        return held

    def _hold(self, data: bytes, ranges: list[tuple[int, int]]) -> None:
        """Keep the beginning of a stream back until it is sure to be the answer, and so anything else until it is whole."""
        self._keep(data, ranges)
        self._deadline_s = self._relay.clock_s + self._target.provider.timeouts.idle_s
        beginning = self._beginning
        if beginning is None:
            if self._held_size > MAX_HELD_BYTES:
                self._release()
            return
        data, ranges = gathered(data, ranges)
        for start, end in ranges:
            beginning.feed(data[start:end])
        if beginning.verdict == "error" and self._has_alternative():
            self._fail(Reason.STREAM_ERROR)
        elif beginning.verdict is not None or self._held_size > MAX_HELD_BYTES:
            self._release()

    def _release(self) -> None:
        """Commit a held stream."""
        held = self._drop_held()
        self._commit(perf_counter())
        for data, ranges in held:
            self._relay_piece(data, ranges)

    def answer_ended(self) -> None:
        """The answer is complete."""
        self._upstream = None
        state = self._state
        if state is HOLDING:
            if self._beginning is not None and self._has_alternative():  # a stream without content is no answer
                self._fail(Reason.BROKEN)
                return
            self._release()
            state = self._state
        elif state is CHECKING:
            self._checked()
            state = self._state
        if state is COLLECTING:
            self._collected()
        elif state is RELAYING:
            self._relayed()

    def _relayed(self) -> None:
        """The answer has gone to the client, whatever it was."""
        is_cut = self._tap is not None and not self._tap.has_ended
        has_failed = is_cut and ends_in_error(*self._last)
        if is_cut and not has_failed and self._body is UNTIL_CLOSE:
            self._break()
            return
        self._end_answer()
        reason = answers.judge(self.record.status, is_own_key=self._target.key is not None)
        if has_failed:
            reason = Reason.STREAM_ERROR
        self._end_attempt(reason)
        is_begun = is_cut and not (has_failed and is_without_content(*self._last, self._answer_size))
        self.record.outcome = BROKEN if is_begun else FAILED if reason else SERVED
        self._finish(closes=self._passing is PAYLOAD)

    def _may_be_mended(self, head: AnswerHead) -> bool:
        """Whether a refusal may be about thinking blocks, or about what was done about them."""
        mending = self._mending
        if mending is not None and mending.target is self._target:
            return True
        request = self._request
        return head.status == 400 and request is not None and Mending.is_possible(request)

    def _checked(self, *, is_whole: bool = True) -> None:
        """A 400 is whole, or can be no error about thinking: try again without the blocks, or pass it on as it came."""
        mending = self._mending
        if is_whole and self._mends():
            return
        if self._has_begun:
            self._state = COLLECTING
            if not is_whole:
                self._detach()
                self._collected(is_whole=False)
            return
        if mending is not None and mending.target is self._target:  # it did not help: the provider's first word counts
            self._detach()
            self._head, self._body, self._held = mending.refusal
            self._release()
            self._relayed()
            return
        self._release()

    def _mends(self) -> bool:
        """Whether the kept 400 is mended: the request is on its way to the same target again, without the blocks."""
        head, request, target = self._head, self._request, self._target
        assert head is not None
        if request is None or not Mending.is_possible(request):
            return False
        mending = self._mending
        if mending is None or mending.target is not target:
            mending = Mending(target, (head, self._body, list(self._held)))
            if not self.session:
                self.session = self._relay.name_conversation(self.record, request.body, self._snapshot)
        if not mending.learn(self._fitted(request, target).body, self._held):
            return False
        self._mending = mending
        self._end_attempt(Reason.SIGNATURE)
        self._drop_held()
        self._targets.insert(0, target)
        self._next_attempt()
        return True

    def _collected(self, *, is_whole: bool = True) -> None:
        """A collected answer is complete, or more than is kept has come."""
        head = self._head
        assert head is not None
        if head.status == 400 and is_whole and not self._is_rewritten and self._mends():
            return
        body = payload_of(self._drop_held())
        reason = answers.judge(head.status, is_own_key=self._target.key is not None)
        if head.status == 429 and self._is_limited(self._target):
            self._relay.budgeting.note_limited(self._target, self.record.model_asked, head, body, perf_counter())
        if head.status == 404 and self._may_be_elsewhere():
            reason = Reason.NOT_THERE
        elif is_whole:
            self._refused = (head, body, self._target)
        if reason is not None:
            self._fail(reason)
        elif not is_whole:
            self._fail(Reason.BROKEN)
        elif self._is_rewritten:
            request = self._request
            base_url = own_base_url(request.head.lines, request.head.special) if request is not None else b""
            self.record.outcome = SERVED
            self._send_whole(head, with_own_results_url(body, base_url))
            self._finish(closes=False)
        else:  # the client's own mistake, but the stream has begun already
            mending = self._mending
            if mending is not None and mending.target is self._target:
                self._refused = (head, payload_of(mending.refusal[2]), self._target)
            self._end_attempt(None)
            self._give_up(Reason.STREAM_ERROR)
            self.record.outcome = SERVED

    def answer_broken(self, *, is_stale: bool) -> None:
        """The upstream hung up."""
        self._upstream = None
        if self._state is RELAYING:
            self._break()
        elif self._state is COLLECTING:
            self._collected(is_whole=False)
        elif self._state is CHECKING:
            self._checked(is_whole=False)
            if self._state is RELAYING:
                self._break()
        elif self._state is not OVER:
            if is_stale and not self._is_stale_retry:
                self._next_attempt(only_fresh=True)
            else:
                self._fail(Reason.BROKEN)

    def _break(self, reason: Reason = Reason.BROKEN) -> None:
        """The answer broke off after the client had its beginning: end it as Anthropic would, or not at all."""
        tap, has_failed, end = self._tap, False, None
        if tap is not None:
            has_failed = not tap.has_ended and ends_in_error(*self._last)
            end = missing_end(self._passing, self._walker) if tap.has_ended or has_failed else None
        if end is not None and is_event_end(*self._last):  # its last event came: only the framing's end is missing
            self._out.append(end)
            self.flush()
            self._end_attempt(Reason.STREAM_ERROR if has_failed else None)
            self.record.outcome = BROKEN if has_failed else SERVED
            self._finish(closes=self._passing is PAYLOAD)
            return
        self._end_attempt(reason)
        self.record.outcome = BROKEN
        if self._end_answer(is_cut=True, what_broke=_BROKE.get(reason, "broke off")):
            self._finish(closes=self._passing is PAYLOAD)
        else:
            self._finish(closes=True, aborts=True)

    # --- the answer, and time ----------------------------------------------------------------------------------------

    def _commit(self, now_s: float) -> None:
        """From here on this is the answer."""
        head = self._head
        assert head is not None
        self._state = RELAYING
        if self._rival is not None:
            self._drop_rival()
        if self.record.decision is not None and self._attempt is not None:
            self._relay.note_first_token(self.record, self._target, head.status, now_s - self._attempt.began_s, now_s)
        self._targets = []
        self._refused = None
        mending = self._mending
        if mending is not None and mending.target is self._target and head.status < 300:
            self._relay.handovers.refused(self.session, mending.marks)
        self._begin_answer(now_s)

    def sweep(self, now_s: float) -> None:
        """Called a few times a second: deadlines, and pings into silence. `now_s` is the relay's clock."""
        if self._client.is_write_paused:  # nobody is silent but the client
            self._deadline_s = max(self._deadline_s, now_s + 1.0)
            return
        if now_s > self._deadline_s:
            self._time_out()
            return
        if now_s > self._ends_s:
            self._ends_s = NEVER_S
            self._run_out()
            return
        if now_s > self._hedge_s:
            self._hedge_s = NEVER_S
            self._begin_rival()
        if not self.record.streamed or now_s - self._last_sent_s < self._snapshot.relay.silence_bound_s:
            return
        if self._state is RELAYING:
            self._ping_between_events()
        elif self._state is HOLDING and (self._beginning is None or self._is_of_http10()):
            self._release()  # no stream, though one was asked for, or its client takes no chunks: pings would spoil it
            self.flush()
        else:
            self._ping_before_content()

    def _is_of_http10(self) -> bool:
        return self._request is not None and self._request.head.is_http10

    def _time_out(self) -> None:
        if self._state is RELAYING:
            self._break(Reason.IDLE_TIMEOUT)
        elif self._state is COLLECTING:
            self._detach()
            self._collected(is_whole=False)
        elif self._state is CHECKING:
            self._checked(is_whole=False)
            self.flush()
        elif self._head is not None:
            self._fail(Reason.IDLE_TIMEOUT)
        else:
            self._fail(Reason.FIRST_BYTE_TIMEOUT)

    def _run_out(self) -> None:
        """The attempt has taken longer than it may."""
        if self._state is RELAYING:
            self._break(Reason.TOTAL_TIMEOUT)
        elif self._state in (WAITING, HOLDING) and self._attempt is not None:
            self._fail(Reason.TOTAL_TIMEOUT)
        else:
            self._time_out()

    def pause(self) -> None:
        """The client does not keep up."""
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self._upstream is not None:
            self._deadline_s = self._relay.clock_s + self._target.provider.timeouts.idle_s
            self._upstream.resume()

    def client_left(self) -> None:
        """The client hung up: so does the relay, at once."""
        if self._state is OVER:
            return
        if self._attempt is not None:
            self._end_attempt(Reason.CLIENT_LEFT)
        elif self._relay.waiting.is_busy:
            self.record.queued_s = self._relay.waiting.leave(self) or 0.0
        self._out.clear()
        self.record.outcome = Outcome.CLIENT_LEFT
        self._account()

    def stop(self) -> None:
        """The worker ends, and waits no longer: tell the client, so that it asks again."""
        if self._state is RELAYING:
            self._break(Reason.STOPPED)
        elif self._state is not OVER:
            if self._attempt is not None:
                self._end_attempt(Reason.STOPPED)
            elif self._relay.waiting.is_busy:
                self._relay.waiting.leave(self)
            self._detach()
            self._drop_held()
            self.record.outcome = FAILED
            message = "the relay is stopping or starting anew, and this took too long; ask again"
            self._send_error(503, "api_error", message, b"retry-after: 1\r\n")
            self._finish(closes=True)

    # --- the end --------------------------------------------------------------------------------------------------

    def _finish(self, *, closes: bool, aborts: bool = False) -> None:
        self._account()
        self._client.exchange_ended(closes=closes, aborts=aborts)

    def _account(self) -> None:
        self._state = OVER
        if self._rival is not None:
            self._drop_rival()
        self._request = None
        self._targets = []
        if self._loaded is not None:
            self._relay.node.load.leave(self._loaded)
            self._loaded = None
        record = self.record
        attempt = self._attempt
        if attempt is None:
            record.total_s = perf_counter() - self._began_s
        else:
            if not attempt.total_s:
                attempt.total_s = perf_counter() - attempt.began_s
            record.total_s = attempt.began_s + attempt.total_s - self._began_s
        record.answer_bytes = self._answer_size
        self._read_usage()
        part, self._part = self._part, None
        if part is not None and record.outcome is Outcome.REFUSED:
            part.refund(perf_counter(), is_sent=False)
        elif part is not None:
            part.settle(record.tokens, perf_counter())
        if part is not None:
            self._relay.waiting.wake()
        if self._client_part is not None:
            self._client_part.over(record, perf_counter())
        head = self._head
        if head is not None:
            record.upstream_request_id = head.special.get(b"request-id", b"")[:MAX_ID_CHARS].decode("latin-1")
        self._relay.exchange_over(self, record, self._target, head)
