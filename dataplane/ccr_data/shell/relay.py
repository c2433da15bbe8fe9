"""What all requests of a node share, and where each request goes: the endpoints.

`Relay` holds the node's state between requests (connections, pins, cooldowns, turns). It answers by itself what needs no
provider, and starts an exchange for everything else.
"""

from __future__ import annotations

import random
import secrets
from time import perf_counter, time
from typing import TYPE_CHECKING, Protocol

from ccr_data.core import answers, catalogue
from ccr_data.core.admit import Admitted, admit
from ccr_data.core.client_limits import ClientLimits, ClientPart, ClientRules
from ccr_data.core.conversation import is_continued, name_of
from ccr_data.core.errors import (
    BodyTooLarge,
    FromWebPage,
    HeadTooLarge,
    NoSuchEndpoint,
    NotReady,
    RequestError,
    TooManyStrangers,
    Unauthorized,
    WrongMethod,
)
from ccr_data.core.handover import Handovers
from ccr_data.core.hedging import HedgeCredit
from ccr_data.core.homes import homes, names_one
from ccr_data.core.http1 import AnswerHead, RequestHead
from ccr_data.core.limit_headers import told_by
from ccr_data.core.matching import Asked
from ccr_data.core.peek import peek, session_of, user_id
from ccr_data.core.pins import Pin, Pins, SessionKey, key_of, lifetime_s, wait_for_pin_s
from ccr_data.core.records import Decision, Endpoint, Outcome, PinUse, RateLimitSighting, Reason, Record
from ccr_data.core.refusals import Refusals
from ccr_data.core.routing import COOLING, Needs, NodeState, Plan, measured, plan
from ccr_data.core.snapshot import AuthStyle, Route, Snapshot, Strategy, Target
from ccr_data.core.strangers import PER_MINUTE, Strangers, network_of
from ccr_data.core.thinking import has_thinking, reader_of, thoughts
from ccr_data.providers.adapter import ClientRequest
from ccr_data.shell.budgeting import Budgeting
from ccr_data.shell.drift import Sentinel
from ccr_data.shell.exchange import Exchange
from ccr_data.shell.logs import Log, masked, may_hold_secret
from ccr_data.shell.upstream import Pool
from ccr_data.shell.waiting_room import WaitingRoom

if TYPE_CHECKING:
    from ccr_data.shell.http_server import ClientConnection

MAX_COOLDOWN_S = 60.0  # a node's own memory is short; longer rests are the control plane's to decide
KEY_REFUSED_COOLDOWN_S = 60.0
_SIGHTED = (b"anthropic-ratelimit-", b"retry-after", b"anthropic-organization-id")
_MAX_NAME = 256
# Looked up as globals: reaching an enum's member through its class takes ten times as long on Python 3.11.
MESSAGES, COUNT_TOKENS, SERVED = Endpoint.MESSAGES, Endpoint.COUNT_TOKENS, Outcome.SERVED


log = Log("relay")


class HasSnapshot(Protocol):
    """Where the newest accepted snapshot is."""

    current: Snapshot | None


class Reporting(Protocol):
    """Who gets the records. All calls return at once and never raise."""

    def note(self, record: Record) -> None:
        """A request has finished."""
        ...

    def note_sighting(self, sighting: RateLimitSighting) -> None:
        """An answer told about limits."""
        ...

    def note_failure(self, provider: str, reason: Reason, key_label: str = "", scope: str = "") -> None:
        """An attempt failed; its request may go on elsewhere."""
        ...

    def note_budgets_changed(self) -> None:
        """Limits are others."""
        ...


class Relay:
    """The node's state between requests."""

    def __init__(self, store: HasSnapshot, reporter: Reporting, salt: bytes = b"") -> None:
        self.store = store
        self.reporter = reporter
        self.drift = Sentinel()
        self.pool = Pool()
        self.pins = Pins()
        self.handovers = Handovers()
        self._salt = salt  # of the names of sessions
        self.node = NodeState(unix_s=time())
        self.budgeting = Budgeting()
        self.waiting = WaitingRoom()
        self.clients = ClientLimits()
        self.hedges = HedgeCredit()
        self.exchanges: set[Exchange] = set()
        self.clock_s = perf_counter()  # as of the last sweep: exact enough for deadlines, and free
        self.unauthorized_total = 0
        self._refusals = Refusals()
        self._strangers = Strangers()
        self._heeded: Snapshot | None = None  # whose circuits the cooldowns know
        self._roll = random.random
        self._id_prefix = f"req_ccr_{secrets.token_hex(5)}"
        self._id_count = 0
        self._sighted_s: dict[tuple[str, str], float] = {}

    def new_request_id(self) -> str:
        """Unique in the fleet: a random part for each start of a node, and a count."""
        self._id_count += 1
        return f"{self._id_prefix}{self._id_count:08x}"

    def snapshot(self) -> Snapshot:
        """The snapshot for a request that begins now. Raises NotReady."""
        current = self.store.current
        if current is None:
            raise NotReady(
                "the relay has no configuration yet; its control plane has not been reached since it was installed"
            )
        return current

    # --- the endpoints --------------------------------------------------------------------------------------------

    def check_head(self, head: RequestHead) -> tuple[Snapshot, Admitted] | None:
        """What is known before the body: who asks, and whether it may come in. None: the endpoint is open to all.

        Raises RequestError.
        """
        path = head.path
        if path in _OPEN:
            return None
        if not path.startswith(b"/v1/"):
            raise NoSuchEndpoint(f"no such endpoint: {_shown(path)}")
        snapshot = self.snapshot()
        try:
            admitted = admit(snapshot.auth, head.special)
        except Unauthorized:
            self.unauthorized_total += 1
            raise
        if head.content_length > snapshot.relay.max_body_bytes:
            raise BodyTooLarge(snapshot.relay.max_body_bytes)
        return snapshot, admitted

    def handle(
        self, client: ClientConnection, head: RequestHead, body: bytes, known: tuple[Snapshot, Admitted] | None
    ) -> Exchange | None:
        """Serve a whole request; the exchange that does, or None if it has been answered. Raises RequestError."""
        if known is None:
            client.write(self._open_answer(head, client))
            return None
        snapshot, admitted = known
        path = head.path
        if path == b"/v1/messages":
            if head.method != b"POST":
                _require_method(head, b"POST")
            return self._inference(client, head, body, snapshot, admitted, MESSAGES)
        if path == b"/v1/messages/count_tokens":
            _require_method(head, b"POST")
            return self._inference(client, head, body, snapshot, admitted, COUNT_TOKENS)
        if path == b"/v1/models" or path.startswith(b"/v1/models/"):
            _require_method(head, b"GET", b"HEAD")
            client.write(self._models(head, client, snapshot))
            return None
        if path == b"/v1/messages/batches" or path.startswith(b"/v1/messages/batches/"):
            return self._pass_on(client, head, body, snapshot, admitted, Endpoint.BATCHES)
        if path == b"/v1/files" or path.startswith(b"/v1/files/"):
            return self._pass_on(client, head, body, snapshot, admitted, Endpoint.FILES)
        raise NoSuchEndpoint(f"no such endpoint: {_shown(path)}")

    def _open_answer(self, head: RequestHead, client: ClientConnection) -> bytes:
        """Probes, which need no credential."""
        _require_method(head, b"GET", b"HEAD")
        status, body = 200, b'{"status":"ok"}'
        if head.path == b"/ready":
            if client.is_draining:
                status, body = 503, b'{"status":"draining"}'
            elif self.store.current is None:
                status, body = 503, b'{"status":"waiting for the first snapshot"}'
        return answers.answer(status, body, is_head=head.method == b"HEAD", closes=client.is_closing_after)

    def _models(self, head: RequestHead, client: ClientConnection, snapshot: Snapshot) -> bytes:
        query = head.target.partition(b"?")[2].decode("ascii")
        name = head.path[len(b"/v1/models/") :].decode("ascii")
        body = catalogue.one(snapshot, name) if name else catalogue.listing(snapshot, query)
        return answers.answer(200, body, is_head=head.method == b"HEAD", closes=client.is_closing_after)

    def _inference(
        self,
        client: ClientConnection,
        head: RequestHead,
        body: bytes,
        snapshot: Snapshot,
        admitted: Admitted,
        endpoint: Endpoint,
    ) -> Exchange:
        record = self._record(head, body, snapshot, admitted, endpoint)
        try:
            peeked = peek(body)
            record.model_asked = peeked.model[:_MAX_NAME]
            if may_hold_secret(record.model_asked):  # pasted into the wrong field: records are kept and shown
                record.model_asked = masked(record.model_asked)
            record.streamed = peeked.wants_stream and endpoint is MESSAGES
            routes = snapshot.routes_of(peeked.model)
            routed = routes[0]
            if len(routes) > 1:
                asked = Asked(admitted.client, bool(record.agent), endpoint is COUNT_TOKENS, head.lines, body)
                routed = snapshot.routed(peeked.model, asked)
            record.route = routed.route.name
            record.session = _session(head, body)
            may_be_pinned, wait_s = True, 0.0
            if not record.session and (routed.only_target is None or self.handovers):
                record.session = name_of(body, record.client)
                may_be_pinned = is_continued(body)
            session = self._key(record, routed.route)
            needs_documents = not routed.reads_documents and b'"document"' in body
            if routed.only_target is not None and endpoint is MESSAGES and admitted.own_token is None:
                targets = [routed.only_target]
            else:
                needs = Needs(
                    endpoint is COUNT_TOKENS, needs_documents, admitted.own_token is not None, record.streamed
                )
                pin = None
                if snapshot.relay.has_session_affinity and session and may_be_pinned:
                    pin = self.pins.of(session, self.clock_s)
                planned = plan(routed, peeked.model, needs, pin, self.node, self.clock_s, self._roll)
                targets = planned.targets
                if pin is not None and self.node.cooldowns:
                    wait_s = self._wait_s(pin, planned, body)
                strategy = routed.route.strategy
                record.decision = Decision(strategy, tuple(targets), planned.passed_over, planned.pin, planned.scored)
            held = None if admitted.rules is None or endpoint is COUNT_TOKENS else self._held(admitted.rules, record)
        except RequestError as error:
            record.status = answers.status_of(error)[0]
            self.reporter.note(record)
            raise
        self.budgeting.follow(snapshot)
        if needs_documents and not targets[0].provider.traits.documents:
            record.warning = f"provider {targets[0].provider.name} does not read document blocks"
        exchange = Exchange(
            self,
            client,
            ClientRequest(head, body, peeked, admitted.own_token),
            snapshot,
            record,
            targets,
            session=session,
            client_part=held,
        )
        hedging = snapshot.relay.hedging
        if hedging is not None and record.streamed and len(targets) > 1:
            decision = record.decision
            if decision is not None and decision.pin is not PinUse.KEPT:  # its cache is where it lives
                self.hedges.note_request(hedging.max_share)
                exchange.hedge(hedging.after_s)
        exchange.start(wait_s)
        return exchange

    def _pass_on(
        self,
        client: ClientConnection,
        head: RequestHead,
        body: bytes,
        snapshot: Snapshot,
        admitted: Admitted,
        endpoint: Endpoint,
    ) -> Exchange:
        """Batches and files: to where what they name may live (core/homes.py)."""
        record = self._record(head, body, snapshot, admitted, endpoint)
        _require_method(head, b"GET", b"POST", b"DELETE", b"HEAD")  # TRACE would show the relay's own key
        if not names_one(head.path):
            raise NoSuchEndpoint(f"no such endpoint: {_shown(head.path)}")
        try:
            found = homes(snapshot, head.method, head.path, has_own_token=admitted.own_token is not None)
            held = None if admitted.rules is None else self._held(admitted.rules, record)
        except RequestError as error:
            record.status = answers.status_of(error)[0]
            self.reporter.note(record)
            raise
        is_batch_answer = endpoint is Endpoint.BATCHES and not head.path.endswith(b"/results")
        request = ClientRequest(head, body, None, admitted.own_token)
        exchange = Exchange(
            self, client, request, snapshot, record, found, is_rewritten=is_batch_answer, client_part=held
        )
        exchange.start()
        return exchange

    def _held(self, rules: ClientRules, record: Record) -> ClientPart:
        """The request's part of what its client may do. Raises ClientLimited."""
        return self.clients.take(record.client, rules, record.request_bytes, perf_counter(), time())

    def _record(
        self, head: RequestHead, body: bytes, snapshot: Snapshot, admitted: Admitted, endpoint: Endpoint
    ) -> Record:
        record = Record(self.new_request_id(), endpoint, time(), admitted.client)
        agent = head.special.get(b"x-claude-code-agent-id")
        if agent is not None:
            record.agent = agent[:_MAX_NAME].decode("latin-1")
        record.request_bytes = len(body)
        record.snapshot_version = snapshot.version
        if self.drift.wants_request:
            self.drift.take(head.lines, body)
        return record

    def stranger(self, error: Unauthorized, address: str) -> RequestError:
        """What to answer to a wrong credential: of many from one address in a minute, the last ones are only told to stop."""
        now_s = perf_counter()
        count = self._strangers.note(address, now_s)
        if count <= PER_MINUTE:
            return error
        wait_s = self._strangers.wait_s(address, now_s)
        if count == PER_MINUTE + 1:
            log.warning("strangers_limited", address=network_of(address), refused=count, for_s=wait_s)
        return TooManyStrangers(
            f"too many requests without a valid credential came from this address; wait {wait_s} s", wait_s
        )

    def note_refusal(self, error: RequestError) -> None:
        """A request was refused: where that is all that is known of it, a line now and then says so."""
        if not isinstance(error, _UNROUTED):
            return
        status, kind = answers.status_of(error)
        count = self._refusals.note(type(error).__name__, perf_counter())
        if count:
            log.warning(
                "requests_refused",
                status=status,
                error=kind,
                requests=count,
                unauthorized_total=self.unauthorized_total,
            )

    # --- what exchanges tell ----------------------------------------------------------------------------------------

    def note_failure(
        self,
        failed: Target,
        reason: Reason,
        head: AnswerHead | None,
        cooldown_s: float,
        now_s: float,
        endpoint: Endpoint = MESSAGES,
    ) -> None:
        """An attempt failed: pass its target over for a while."""
        if reason in _NOBODYS_FAULT:
            return
        self.reporter.note_failure(failed.provider.name, reason, failed.label, failed.scope[1])
        if reason is Reason.RATE_LIMITED and endpoint is not MESSAGES:
            return  # counting, batches and files have limits of their own: no reason for a session to leave its home
        if reason is Reason.RATE_LIMITED and failed.key is None and failed.provider.auth_style is not AuthStyle.NONE:
            return  # a client's own token: others have other limits
        if reason is Reason.KEY_REFUSED:
            cooldown_s = KEY_REFUSED_COOLDOWN_S
        elif reason is Reason.RATE_LIMITED and head is not None:
            retry_after = head.special.get(b"retry-after", b"")
            if retry_after.isdigit():
                cooldown_s = min(float(retry_after[:6]), MAX_COOLDOWN_S)
        if cooldown_s > 0:
            if self._heeded is None:  # a failure before the first sweep
                self._heeded = self.store.current
            self.node.cooldowns.note(failed, reason, now_s + cooldown_s)

    def note_first_token(self, record: Record, by: Target, status: int, seconds: float, now_s: float) -> None:
        """An answer has begun so long after its attempt."""
        decision = record.decision
        if decision is not None and status == 200 and _is_timed(record, decision):
            self.node.latencies.sample(measured(by, record.model_asked, streams=record.streamed), seconds, now_s)

    def _note_slow(self, record: Record) -> None:
        """The attempts that failed count as slow ones."""
        for attempt in record.attempts:
            if attempt.reason is not None and attempt.reason.is_of_provider:
                self.node.latencies.failed((attempt.provider, attempt.model, record.streamed), self.clock_s)

    def exchange_over(self, exchange: Exchange, record: Record, last: Target, head: AnswerHead | None) -> None:
        """An exchange has ended; its record is final."""
        self.exchanges.discard(exchange)
        if record.outcome is SERVED:
            self.node.cooldowns.clear(last)
            if exchange.session and record.endpoint is MESSAGES and 200 <= record.status < 300:
                self._pin(exchange.session, record, last)
        decision = record.decision
        if decision is not None and _is_timed(record, decision):
            self._note_slow(record)
        self.reporter.note(record)
        if head is not None:
            self._sight(record, last, head)

    def _wait_s(self, pin: Pin, planned: Plan, body: bytes) -> float:
        """How long to wait for the pinned target. It is put first then, and the session keeps its home."""
        targets = planned.targets
        for at, one in enumerate(targets):
            if one.provider.name == pin.provider and one.label == pin.key_label:
                wait_s = wait_for_pin_s(self.node.cooldowns.rest_s(one, self.clock_s), body)
                if wait_s:
                    targets.insert(0, targets.pop(at))
                    planned.pin = PinUse.KEPT
                    planned.passed_over.remove((f"{one.provider.name}/{one.label}", COOLING))
                return wait_s
        return 0.0

    def _key(self, record: Record, route: Route | None) -> SessionKey:
        if not record.session:
            return b""
        aside = route.aside if route is not None else ""
        return key_of(self._salt, record.session, record.agent, record.model_asked, aside)

    def name_conversation(self, record: Record, body: bytes, snapshot: Snapshot) -> SessionKey:
        """Name a session that nobody has named, because there is something to remember of it."""
        record.session = name_of(body, record.client)
        return self._key(record, next((route for route in snapshot.routes if route.name == record.route), None))

    def foreign_thinking(self, session: SessionKey, to: Target, model: str, body: bytes) -> frozenset[bytes]:
        """The marks of thinking blocks that a target cannot verify, as far as is known of the session."""
        home = self.pins.home(session)
        has_moved = home is not None and (home.provider != to.provider.name or home.key_label != to.label)
        if not has_moved and session not in self.handovers:
            return _NOTHING
        reader = reader_of(to, model)
        if home is not None and has_moved and home.reader not in ("", reader) and has_thinking(body):
            self.handovers.moves(session, [thought.mark for thought in thoughts(body)], home.reader)
        return self.handovers.foreign(session, reader)

    def _pin(self, session: SessionKey, record: Record, to: Target) -> None:
        """The session's cache and thinking are there now."""
        name, label = to.provider.name, to.label
        home = self.pins.home(session)
        if home is not None and (home.provider != name or home.key_label != label):
            home = None
        reader = home.reader if home is not None and home.reader else reader_of(to, record.model_asked)
        lifetime = lifetime_s(record.tokens, home)
        self.pins.put(session, name, label, self.clock_s, reader, lifetime, to.model or "")

    def _sight(self, record: Record, last: Target, head: AnswerHead) -> None:
        key = (last.provider.name, last.label)
        if self._sighted_s.get(key) == self.clock_s and record.status != 429:  # once between two sweeps is enough
            return
        headers = {
            name.decode("latin-1"): value[:_MAX_NAME].decode("latin-1")
            for name, value in told_by(head).items()
            if name.startswith(_SIGHTED)
        }
        if headers:
            self._sighted_s[key] = self.clock_s
            self.reporter.note_sighting(RateLimitSighting(*key, time(), head.status, headers))

    def sweep(self, now_s: float) -> None:
        """Called a few times a second with time.perf_counter()."""
        self.clock_s = now_s
        self.pool.clock_s = now_s
        self.node.unix_s = time()
        current = self.store.current
        if current is not self._heeded:
            if current is not None and self._heeded is not None:
                self.node.cooldowns.heed(self._heeded, current)
            self._heeded = current
        if current is not None and self.budgeting.follow(current):  # limits hold, and are told of, before anybody asks
            self.waiting.wake()
            self.reporter.note_budgets_changed()
        for exchange in tuple(self.exchanges):
            exchange.sweep(now_s)
        self.pool.sweep(now_s)


_UNROUTED = (Unauthorized, TooManyStrangers, FromWebPage, NoSuchEndpoint, WrongMethod, BodyTooLarge, HeadTooLarge)
_NOBODYS_FAULT = (Reason.SIGNATURE, Reason.HEDGED, Reason.NOT_THERE, Reason.STOPPED)
_NOTHING: frozenset[bytes] = frozenset()
_OPEN = frozenset((b"/", b"/health", b"/ready", b"/api/hello"))


def _require_method(head: RequestHead, *allowed: bytes) -> None:
    if head.method not in allowed:
        names = ", ".join(method.decode() for method in allowed)
        raise WrongMethod(f"{_shown(head.path)} takes {names}, not {head.method.decode()}", names)


def _shown(path: bytes) -> str:
    return path[:_MAX_NAME].decode("ascii", "replace")


def _session(head: RequestHead, body: bytes) -> str:
    """The session a request belongs to (docs/providers/claude-code.md): the header, else the one in metadata.user_id."""
    named = head.special.get(b"x-claude-code-session-id")
    if named:
        return named[:_MAX_NAME].decode("latin-1")
    identity = user_id(body)
    return session_of(identity) if identity else ""


def _is_timed(record: Record, decision: Decision) -> bool:
    """Whether its times are of use. Counting tokens takes no model's time."""
    return decision.strategy is Strategy.LATENCY_BASED and record.endpoint is MESSAGES
