"""Nodes: what shell/relay.py, shell/exchange.py, shell/report.py, shell/lanes.py, shell/deliver.py, shell/watch.py,
shell/shared_pins.py and shell/kept_budgets.py do between the decisions of ccr_data.core.

- `Flight` stands for `Exchange`: attempt, hold, move on, give up, account; bytes apart.
- `Node.handle` stands for `Relay._inference`; `note_failure`, `exchange_over`, `_wait_s` and `_pin` have their counterparts' names.
- `Reports` stands for `Reporter`, its lanes and its delivery; journal, detail, encoder and what waits are the real ones.
- `Machine` stands for a state directory: notes of pins, spools of usage, what was used of budgets. They outlive nodes.
"""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Any

from ccr_data.core import answers
from ccr_data.core.amounts import WINDOW_S, Spent
from ccr_data.core.batches import Batch, Journal, Waiting
from ccr_data.core.errors import RequestError
from ccr_data.core.folding import Detail
from ccr_data.core.handover import Handovers
from ccr_data.core.http1 import AnswerHead
from ccr_data.core.node import NodeStatus
from ccr_data.core.pins import Pin, Pins, SessionKey, lifetime_s, wait_for_pin_s
from ccr_data.core.records import AttemptRecord, Decision, Endpoint, Outcome, Reason, Record
from ccr_data.core.routing import Needs, NodeState, after_failure, plan
from ccr_data.core.snapshot import Snapshot, Target
from ccr_data.core.thinking import reader_of
from ccr_data.shell.budgeting import Budgeting
from ccr_data.shell.kept_budgets import EVERY_S
from ccr_data.shell.lanes import STATUS_SPACING_S
from ccr_data.shell.relay import KEY_REFUSED_COOLDOWN_S, MAX_COOLDOWN_S
from ccr_data.shell.report import COLLECT_WITHIN_S, STATUS_EVERY_S, URGENT_SPACING_S
from ccr_data.shell.shared_pins import INTERVAL_S
from ccr_data.shell.usage_wire import UsageEncoder, lease_of, status_suffix
from ccr_rpc.v1 import usage_pb2

from simulate.clock import EPOCH_S, Clock
from simulate.providers import Answer
from simulate.sessions import Ending, Turn

if TYPE_CHECKING:
    from simulate.world import World

LOOP_BODY = (
    b'{"messages":[{"role":"user","content":"go"},{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"n","input":{}}]},'
    b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"done"}]}]}'
)
TURN_BODY = b'{"messages":[{"role":"user","content":"go"}]}'
CONNECT_S = 0.03
ACKNOWLEDGE_S = 10.0  # control_link.PATIENT
RECONNECT_S = 0.5
STREAMED = Needs(streams=True)


class Machine:
    """What the workers of one machine share, and what outlives them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.nodes: list[Node] = []
        self.notes: dict[SessionKey, Pin] = {}  # the newest of each session, as on disk
        self.spools: list[Waiting[Batch]] = []  # of dead processes
        self.budgets: dict[str, tuple[float, list[Spent]]] = {}  # by node: when it was kept, and what was used


class Flight:
    """One request, from its routing to its record."""

    __slots__ = (
        "answer",
        "arrived_s",
        "attempt",
        "began_s",
        "direct_read",
        "is_over",
        "loaded",
        "node",
        "part",
        "pin",
        "pool",
        "record",
        "refused",
        "snapshot",
        "state",
        "target",
        "targets",
        "turn",
    )

    def __init__(
        self, node: Node, turn: Turn, snapshot: Snapshot, record: Record, targets: list[Target], pin: Pin | None
    ) -> None:
        self.node, self.turn, self.snapshot, self.record, self.targets, self.pin = (
            node,
            turn,
            snapshot,
            record,
            targets,
            pin,
        )
        self.began_s = node.clock.now_s
        self.state = 0  # grows with each attempt: what was meant for an earlier one is not heeded
        self.is_over = False
        self.target = targets[0]
        self.loaded: Target | None = None
        self.attempt: AttemptRecord | None = None
        self.part: Any = None
        self.pool: list[Target] = []
        self.refused: tuple[AnswerHead, Target] | None = None
        self.answer: Answer | None = None
        self.arrived_s = 0.0
        self.direct_read = 0

    def next_attempt(self) -> None:
        """Exchange._next_attempt, _choose and the connection."""
        node = self.node
        if self.is_over:
            return
        if not self._choose():
            self._no_room()
            return
        target = self.target
        if self.loaded is not None:
            node.state.load.leave(self.loaded)
        node.state.load.enter(target)
        self.loaded = target
        attempts = self.record.attempts
        self.attempt = AttemptRecord(
            target.provider.name,
            target.label,
            target.scope[1],
            target.model or self.record.model_asked,
            node.clock.now_s,
        )
        attempts.append(self.attempt)
        self.state += 1
        node.clock.after(CONNECT_S * node.roll(), self._connected, self.state)

    def _choose(self) -> bool:
        budgeting, targets = self.node.budgeting, self.targets
        at = 0
        if budgeting.limits.is_active:
            at, self.part = budgeting.choose(
                targets, self.record.model_asked, self.turn.size_bytes, self.node.clock.now_s
            )
            if at and self.record.decision is not None:
                full = targets if at < 0 else targets[:at]
                self.record.decision.passed_over += [(f"{one.provider.name}/{one.label}", "no room") for one in full]
            if at < 0:
                return False
        self.target = targets.pop(at)
        self.pool.append(self.target)
        return True

    def _no_room(self) -> None:
        node = self.node
        attempts = self.record.attempts
        if attempts:
            self._give_up(attempts[-1].reason or Reason.RATE_LIMITED)
            return
        told = node.budgeting.no_room(self.targets, self.record.model_asked, self.turn.size_bytes, node.clock.now_s)
        self.record.outcome = Outcome.FAILED
        self.record.status = 429
        self._finish(Ending("failed", 429, told.retry_after_s, told.is_soon))

    def _connected(self, state: int) -> None:
        if self.is_over or state != self.state:
            return
        clock, world = self.node.clock, self.node.world
        upstream = world.upstreams[self.target.provider.name]
        now_s = clock.now_s
        spell = upstream.spell(self.target.scope[1], now_s)
        if spell is not None and spell.kind in ("down", "dead"):
            self._fail(Reason.CONNECT)
            return
        if self.part is not None:
            self.part.sent(now_s)
        clock.after(world.wire_s(), self._arrived, state)

    def _arrived(self, state: int) -> None:
        """At the provider, whether or not anybody still waits for it."""
        clock, world = self.node.clock, self.node.world
        scope = world.account_of(self.target)
        answer = world.upstreams[self.target.provider.name].answer(scope, self.turn, clock.now_s)
        if self.is_over or state != self.state:
            return
        self.answer = answer
        self.arrived_s = clock.now_s
        if answer.status == 200 and not answer.error_event and answer.total_s < math.inf:
            self.direct_read = world.clients.ideal.read(self.turn, clock.now_s)
        timeouts = self.target.provider.timeouts
        if answer.first_byte_s > timeouts.first_byte_s:
            clock.after(timeouts.first_byte_s, self._timed_out, state)
        else:
            clock.after(answer.first_byte_s, self._head, state)

    def _timed_out(self, state: int) -> None:
        if not self.is_over and state == self.state:
            self._fail(Reason.FIRST_BYTE_TIMEOUT)

    def _head(self, state: int) -> None:
        """Exchange.head_received, with all of a short answer."""
        if self.is_over or state != self.state:
            return
        answer, attempt, node = self.answer, self.attempt, self.node
        assert answer is not None
        assert attempt is not None
        now_s = node.clock.now_s
        attempt.status = answer.status
        attempt.first_byte_s = now_s - attempt.began_s
        head = AnswerHead(answer.status, b"", _lines(answer), answer.special, None, False, True, answer.status == 200)
        if answer.special and self.target.key is not None:
            node.budgeting.note_head(self.target, self.record.model_asked, head, self.part, now_s)
        reason = answers.judge(answer.status, is_own_key=self.target.key is not None)
        if reason is not None:
            if reason is Reason.RATE_LIMITED:
                node.budgeting.note_limited(self.target, self.record.model_asked, head, b"", now_s)
            self.refused = (head, self.target)
            self._fail(reason, head)
        elif answer.error_event and self._has_alternative():
            self._fail(Reason.STREAM_ERROR)
        else:
            self._commit(state, answer, now_s)

    def _commit(self, state: int, answer: Answer, now_s: float) -> None:
        self.record.status = answer.status
        self.record.first_byte_s = now_s - self.began_s
        attempt = self.attempt
        if self.record.decision is not None and attempt is not None:
            self.node.note_first_token(self.record, self.target, answer.status, now_s - attempt.began_s)
        self.targets = []
        self.node.clock.after(max(0.0, answer.total_s - answer.first_byte_s), self._ended, state)

    def _ended(self, state: int) -> None:
        """Exchange._relayed or _break."""
        if self.is_over or state != self.state:
            return
        answer = self.answer
        assert answer is not None
        if answer.error_event or answer.is_cut:
            self._end_attempt(Reason.BROKEN, None)
            self.record.outcome = Outcome.BROKEN
            self._finish(Ending("broken"))
            return
        self._end_attempt(None, None)
        self.record.outcome = Outcome.SERVED
        self.record.tokens = answer.tokens
        if answer.status == 200:
            self.node.world.clients.ideal.write(self.turn, self.arrived_s)
            ending = Ending("served", 200, 0, True, answer.tokens.cache_read, self.direct_read, self.arrived_s)
        else:
            ending = Ending("refused", answer.status)
        self._finish(ending)

    def _has_alternative(self) -> bool:
        policy = self.snapshot.relay
        return (
            bool(self.targets)
            and len(self.record.attempts) < policy.max_attempts
            and self.node.clock.now_s - self.began_s < policy.failover_timeout_s
        )

    def _fail(self, reason: Reason, head: AnswerHead | None = None) -> None:
        self._end_attempt(reason, head)
        self.targets = after_failure(self.targets, self.target, reason)
        if self._has_alternative():
            self.next_attempt()
        else:
            self._give_up(reason)

    def _end_attempt(self, reason: Reason | None, head: AnswerHead | None) -> None:
        attempt = self.attempt
        assert attempt is not None
        now_s = self.node.clock.now_s
        attempt.reason = reason
        attempt.total_s = now_s - attempt.began_s
        if reason is None:
            return
        part = self.part
        if part is not None and self.record.status != 200:
            self.part = None
            part.refund(now_s, is_sent=reason is not Reason.CONNECT)
        self.node.note_failure(self.target, reason, head, self.snapshot.relay.cooldown_s, now_s)

    def _give_up(self, reason: Reason) -> None:
        node = self.node
        self.record.outcome = Outcome.FAILED
        if self.refused is None:
            self.record.status = answers.no_answer(reason, self.target.provider.name, len(self.record.attempts))[0]
            self._finish(Ending("failed", self.record.status))
            return
        head, self.target = self.refused
        self.record.status = head.status
        if head.status == 429:
            node.budgeting.heed_pool(
                head, self.pool + self.targets, self.record.model_asked, self.turn.size_bytes, node.clock.now_s
            )
        self._finish(Ending("failed", head.status, *_told(head)))

    def _finish(self, ending: Ending) -> None:
        """Exchange._account, and what the client sees of it."""
        node, record = self.node, self.record
        self.is_over = True
        now_s = node.clock.now_s
        if self.loaded is not None:
            node.state.load.leave(self.loaded)
            self.loaded = None
        record.total_s = now_s - self.began_s
        part, self.part = self.part, None
        if part is not None:
            part.settle(record.tokens, now_s)
        node.exchange_over(self, record)
        node.world.flight_ended(self, ending)

    def vanish(self) -> None:
        """Its node has died."""
        self.is_over = True
        self.node.world.flight_ended(self, Ending("lost"))


def _lines(answer: Answer) -> list[bytes]:
    waits = answer.special.get(b"retry-after")
    return [b"retry-after: " + waits] if waits else []


def _told(head: AnswerHead) -> tuple[int, bool]:
    """`retry-after` and `x-should-retry`, as the client reads them."""
    retry_after_s, may_retry = 0, True
    for line in head.lines:
        name, _, value = line.partition(b":")
        if name == b"retry-after":
            retry_after_s = int(value)
        elif name == b"x-should-retry":
            may_retry = value.strip() != b"false"
    return retry_after_s, may_retry


class Node:
    """A process of the data plane."""

    def __init__(self, world: World, name: str, machine: Machine, instance: int) -> None:
        self.world, self.name, self.machine, self.instance = world, name, machine, instance
        self.clock: Clock = world.clock
        self.roll = Random(f"{world.plan.seed} {name} {instance}").random  # noqa: S311
        self.snapshot: Snapshot | None = world.disk_snapshots.get(name)
        self.pins = Pins()
        self.handovers = Handovers()
        self.state = NodeState(unix_s=world.clock.unix())
        self.budgeting = Budgeting()
        self.flights: set[Flight] = set()
        self.is_alive = True
        self._is_telling = False
        self._count = 0
        for session, pin in machine.notes.items():
            self.pins.learn(session, pin)
        kept_s, spent = machine.budgets.get(name, (-1e9, []))
        if self.clock.now_s - kept_s < WINDOW_S:  # KeptBudgets.load
            self.budgeting.limits.recall(spent, self.clock.now_s, self.clock.now_s - kept_s)
        self._is_keeping = False
        self.reports = Reports(self)

    # --- requests -----------------------------------------------------------------------------------------------------

    def handle(self, turn: Turn) -> None:
        """Relay._inference."""
        snapshot, now_s, session = self.snapshot, self.clock.now_s, turn.session
        if snapshot is None:  # NotReady
            self.world.clients.ended(turn, Ending("failed", 503, 1))
            return
        self._count += 1
        self.state.unix_s = EPOCH_S + now_s
        model = session.crowd.model
        record = Record(f"{self.name}.{self.instance}.{self._count}", Endpoint.MESSAGES, EPOCH_S + now_s, "client")
        record.session = str(session.number)
        record.model_asked = model
        record.streamed = True
        record.snapshot_version = snapshot.version
        routed = snapshot.routed(model)
        record.route = routed.route.name
        wait_s, pin = 0.0, None
        if routed.only_target is not None:
            targets = [routed.only_target]
        else:
            if snapshot.relay.has_session_affinity:
                pin = self.pins.of(session.key, now_s)
                self.world.checks.pin_found(self, turn, pin, now_s)
            try:
                planned = plan(routed, model, STREAMED, pin, self.state, now_s, self.roll)
            except RequestError as error:
                record.status = answers.status_of(error)[0]
                self.reports.note(record)
                self.world.refused_by_relay(self, turn, record)
                return
            targets = planned.targets
            if pin is not None and self.state.cooldowns:
                wait_s = self._wait_s(pin, targets, LOOP_BODY if turn.step.is_loop else TURN_BODY)
            record.decision = Decision(
                routed.route.strategy, tuple(targets), planned.passed_over, planned.pin, planned.scored
            )
        self.budgeting.follow(snapshot)
        self.keep_budgets_soon()
        flight = Flight(self, turn, snapshot, record, targets, pin)
        self.flights.add(flight)
        if wait_s:
            self.clock.after(wait_s, flight.next_attempt)
        else:
            flight.next_attempt()

    def keep_budgets_soon(self) -> None:
        """Something may have changed about them."""
        if not self._is_keeping:
            self._is_keeping = True
            self.clock.after(EVERY_S * self.roll(), self._keep_budgets)

    def _keep_budgets(self) -> None:
        """KeptBudgets.save, for as long as there is something new."""
        if not self.is_alive:
            return
        before = self.machine.budgets.get(self.name)
        spent = self.budgeting.limits.spent(self.clock.now_s)
        self.machine.budgets[self.name] = (self.clock.now_s, spent)
        if before is None or before[1] != spent:
            self.clock.after(EVERY_S, self._keep_budgets)
        else:
            self._is_keeping = False

    def _wait_s(self, pin: Pin, targets: list[Target], body: bytes) -> float:
        for at, one in enumerate(targets):
            if one.provider.name == pin.provider and one.label == pin.key_label:
                wait_s = wait_for_pin_s(self.state.cooldowns.rest_s(one, self.clock.now_s), body)
                if wait_s:
                    targets.insert(0, targets.pop(at))
                return wait_s
        return 0.0

    def note_failure(
        self, failed: Target, reason: Reason, head: AnswerHead | None, cooldown_s: float, now_s: float
    ) -> None:
        """Relay.note_failure."""
        self.reports.note_failure(failed, reason)
        if reason is Reason.KEY_REFUSED:
            cooldown_s = KEY_REFUSED_COOLDOWN_S
        elif reason is Reason.RATE_LIMITED and head is not None:
            retry_after = head.special.get(b"retry-after", b"")
            if retry_after.isdigit():
                cooldown_s = min(float(retry_after[:6]), MAX_COOLDOWN_S)
        if cooldown_s > 0:
            self.state.cooldowns.note(failed, reason, now_s + cooldown_s)

    def note_first_token(self, record: Record, by: Target, status: int, seconds: float) -> None:
        """Relay.note_first_token."""
        decision = record.decision
        if decision is not None and status == 200 and decision.strategy.value == "latency-based":
            measured = (by.provider.name, by.model or record.model_asked, True)
            self.state.latencies.sample(measured, seconds, self.clock.now_s)

    def exchange_over(self, flight: Flight, record: Record) -> None:
        """Relay.exchange_over."""
        self.flights.discard(flight)
        if record.outcome is Outcome.SERVED:
            self.state.cooldowns.clear(flight.target)
            if record.status == 200:
                self._pin(flight, record)
        decision = record.decision
        if decision is not None and decision.strategy.value == "latency-based":
            for attempt in record.attempts:
                if attempt.reason is not None and attempt.reason.is_of_provider:
                    self.state.latencies.failed((attempt.provider, attempt.model, True), self.clock.now_s)
        self.reports.note(record)

    def _pin(self, flight: Flight, record: Record) -> None:
        session, to = flight.turn.session, flight.target
        name, label = to.provider.name, to.label
        home = self.pins.home(session.key)
        if home is not None and (home.provider != name or home.key_label != label):
            home = None
        reader = home.reader if home is not None and home.reader else reader_of(to, record.model_asked)
        self.pins.put(session.key, name, label, self.clock.now_s, reader, lifetime_s(record.tokens, home))
        session.home, session.home_s = (name, label), self.clock.now_s
        if not self._is_telling and self.pins.changed:
            self._is_telling = True
            self.clock.after(INTERVAL_S * (0.2 + 0.8 * self.roll()), self._tell_pins)

    def _tell_pins(self) -> None:
        """SharedPins: news go to the disk, and a while later the others have read them."""
        if not self.is_alive:
            return
        self._is_telling = False
        news, self.pins.changed = self.pins.changed, {}
        copies = {
            session: Pin(p.provider, p.key_label, p.until_s, p.reader, p.lifetime_s, p.noted_s)
            for session, p in news.items()
        }
        self.machine.notes.update(copies)
        for other in self.machine.nodes:
            if other is not self and other.is_alive:
                self.clock.after(INTERVAL_S * other.roll(), other.learn_pins, copies)

    def learn_pins(self, notes: dict[SessionKey, Pin]) -> None:
        """SharedPins._learn."""
        if self.is_alive:
            for session, p in notes.items():
                self.pins.learn(session, Pin(p.provider, p.key_label, p.until_s, p.reader, p.lifetime_s, p.noted_s))

    # --- the control plane's word -------------------------------------------------------------------------------------

    def offered(self, snapshot: Snapshot) -> None:
        """A snapshot has arrived."""
        if self.is_alive and (self.snapshot is None or snapshot.version > self.snapshot.version):
            self.snapshot = snapshot
            self.world.disk_snapshots[self.name] = snapshot
            self.world.passes_by(snapshot.version)

    def die(self) -> None:
        """Killed: what was not on disk is gone."""
        self.is_alive = False
        self.reports.die()
        for flight in sorted(self.flights, key=lambda one: one.turn.session.number):
            flight.vanish()
        self.flights.clear()


class Reports:
    """A node's usage on its way to the control plane."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._clock = node.clock
        name = f"{node.name}.{node.instance}"
        self.journal = Journal(name, UsageEncoder())
        self._detail = Detail(100)
        self.noted: list[Record] = []
        self._is_collecting = False
        self._sealed_s = -1.0
        self._status_sent_s = -1e9
        self._spooled: list[Batch] = []
        spacing_s = node.world.plan.status_every_s
        self._spacing_s = spacing_s or STATUS_SPACING_S
        self._idle_s = max(STATUS_EVERY_S, spacing_s)
        self.stream = 0  # the number of the stream in use; 0: none
        self.lanes: list[Waiting[Batch]] = [self.journal.waiting]
        self.lanes += [spool for spool in node.machine.spools if spool.journal.rpartition(".")[0] == node.name]
        self._sent: dict[str, int] = {}
        self._heard_s = 0.0
        self._ticks = 0
        self._clock.after(node.roll() * RECONNECT_S, self._connect)
        self._clock.after(node.roll() * self._idle_s, self._tick_again, 0)

    # --- taking in ----------------------------------------------------------------------------------------------------

    def note(self, record: Record) -> None:
        """Reporter.note."""
        self.noted.append(record)
        self.node.world.checks.usage_noted()
        if record.has_failed_attempt:
            self._collect_soon(URGENT_SPACING_S)
        elif not self._is_collecting:
            self._collect_soon(COLLECT_WITHIN_S * self.node.roll())

    def note_failure(self, failed: Target, reason: Reason) -> None:
        """Reporter.note_failure."""
        if self.journal.sight_failure(*self.node.world.failure_names(failed), reason, self._clock.unix()):
            self._collect_soon(URGENT_SPACING_S)

    def _collect_soon(self, within_s: float) -> None:
        self._is_collecting = True
        now_s = self._clock.now_s
        wait_s = max(0.0, self._sealed_s + URGENT_SPACING_S - now_s) if within_s == URGENT_SPACING_S else within_s
        self._clock.after(wait_s, self._collect)

    def _collect(self) -> None:
        if not self.node.is_alive or not self._is_collecting:
            return
        self._is_collecting = False
        self._sealed_s = self._clock.now_s
        noted, self.noted = self.noted, []
        self.journal.note(*self._detail.split(noted, self._clock.now_s))
        self._seal()

    def _tick(self) -> None:
        """When there is nothing else to tell."""
        if not self.node.is_alive:
            return
        now_s = self._clock.now_s
        if self.stream and now_s - self._status_sent_s >= self._idle_s:
            self._seal(even_if_empty=True)
        if self.stream and self._is_waiting() and now_s - self._heard_s > ACKNOWLEDGE_S:
            self.lost_stream(self.stream)
        self._ticks += 1
        self._clock.after(
            max(COLLECT_WITHIN_S, self._status_sent_s + self._idle_s - now_s), self._tick_again, self._ticks
        )

    def _tick_again(self, tick: int) -> None:
        if tick == self._ticks:
            self._tick()

    def _seal(self, *, even_if_empty: bool = False) -> None:
        if self.journal.seal(self._clock.now_s, even_if_empty=even_if_empty) is not None:
            self._send()
        if self.journal.is_spool_spent:
            self._spooled.clear()
            self.journal.spool_emptied()
        elif self.journal.is_cut_off(self._clock.now_s) and (new := self.journal.unspooled()):
            self._spooled += new.batches
            self.journal.spooled(new)

    # --- delivering ---------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        node = self.node
        if not node.is_alive or self.stream:
            return
        control = node.world.control
        if control is None:
            self._clock.after(RECONNECT_S * (0.5 + node.roll()), self._connect)
            return
        self.stream = control.joined(node)
        self._heard_s = self._clock.now_s
        self._sent = {lane.sent_as: lane.acknowledged for lane in self.lanes}
        self._send()
        self._ticks += 1
        self._clock.after(COLLECT_WITHIN_S * node.roll(), self._tick_again, self._ticks)

    def lost_stream(self, stream: int) -> None:
        """The stream has ended, whoever ended it."""
        if stream == self.stream and self.node.is_alive:
            self.stream = 0
            self._clock.after(RECONNECT_S * (0.5 + self.node.roll()), self._connect)

    def _is_waiting(self) -> bool:
        return any(self._sent.get(lane.sent_as, 0) > lane.acknowledged for lane in self.lanes)

    def _send(self) -> None:
        """Delivery._send_next, until there is nothing."""
        if not self.stream:
            return
        node = self.node
        if not self._is_waiting():
            self._heard_s = self._clock.now_s
        for lane in self.lanes:
            while (found := lane.after(self._sent.get(lane.sent_as, lane.acknowledged))) is not None:
                number, batch = found
                payload = batch.payload
                if lane.sent_as != lane.journal:
                    payload += usage_pb2.UsageBatch(journal=lane.sent_as).SerializeToString()
                if lane is self.journal.waiting and self._clock.now_s - self._status_sent_s >= self._spacing_s:
                    self._status_sent_s = self._clock.now_s
                    uses = tuple(node.budgeting.limits.uses(self._clock.now_s))
                    payload += status_suffix(NodeStatus(len(node.flights), 0, 0, uses), 0, 0)
                self._sent[lane.sent_as] = number
                node.world.to_control(self.stream, payload)

    def answered(self, stream: int, message: bytes) -> None:
        """Delivery._take_acks."""
        node = self.node
        if not node.is_alive:
            return
        response = usage_pb2.ReportUsageResponse.FromString(message)
        for lease in response.leases:
            node.budgeting.limits.take_lease(lease_of(lease))
            node.world.checks.lease_taken()
        if response.leases:
            node.keep_budgets_soon()
        if stream != self.stream:
            return  # a stream that has ended: the real one would not hear it
        self._heard_s = self._clock.now_s
        for lane in [*self.lanes]:
            if lane.sent_as == response.journal:
                if lane is self.journal.waiting:
                    self.journal.ack(response.acknowledged)
                    if self.journal.is_spool_spent:
                        self._spooled.clear()
                        self.journal.spool_emptied()
                else:
                    lane.ack(response.acknowledged)
                    if not len(lane):
                        self.lanes.remove(lane)
                        node.machine.spools.remove(lane)

    def gap(self, stream: int, journal: str, expected: int) -> None:
        """The control plane ended the stream and named the number it expects."""
        if stream != self.stream or not self.node.is_alive:
            return
        for lane in self.lanes:
            if lane.sent_as == journal:
                if lane is self.journal.waiting:
                    self.journal.resume_at(expected)
                else:
                    lane.resume_at(expected)
                break
        self.lost_stream(stream)

    # --- the end ------------------------------------------------------------------------------------------------------

    def die(self) -> None:
        """What waits and is on disk is delivered by a successor; the rest is lost, and counted as such."""
        node = self.node
        on_disk = {batch.number for batch in self._spooled}
        spool: Waiting[Batch] = Waiting(self.journal.waiting.journal)
        spool.sent_as = self.journal.waiting.sent_as
        spool.acknowledged = self.journal.waiting.acknowledged
        checks = node.world.checks
        checks.usage_lost(len(self.noted))
        for batch in self.journal.waiting:
            if batch.number in on_disk:
                spool.add(batch.number, batch)
            else:
                checks.usage_unsaved(spool.sent_as, batch.number, requests_in(batch.payload))
        open_part = self.journal.everything().draft
        if open_part is not None:
            checks.usage_lost(requests_in(open_part.payload))
        if len(spool):
            node.machine.spools.append(spool)


def requests_in(payload: bytes) -> int:
    """How many finished requests a batch tells of."""
    batch = usage_pb2.UsageBatch.FromString(payload)
    return len(batch.records) + sum(part.requests for part in batch.sums)
