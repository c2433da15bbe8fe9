"""Plays an episode on a fleet: load, faults, healing, and then everything that is known of it as a history."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import grpc.aio
from ccr_rpc.v1 import providers_pb2, providers_pb2_grpc

from chaos.checks import least_counted
from chaos.fleet import Fleet, canaries, until
from chaos.history import COMPLETE, History, Span, Sums
from chaos.plans import CONFIG_FAULTS, NODES, Episode, Fault
from chaos.providers import Illness

SETTLED_AFTER_S = 1.6  # without news and spools; a node that is cut off keeps on disk what it has after a second
MISSING_AFTER_S = 8.0  # the same if something is missing
HEALED_WITHIN_S = 150.0  # a busy machine starts a process in half a minute
REVOKED_AFTER_S = 0.05  # of its successor's arrival in the file

RETRY_AFTER_S = 1.3  # a provider that said 429 said to come again in a second

Act = Callable[[Fleet, Fault], Awaitable[None]]


async def play(fleet: Fleet, plan: Episode) -> History:
    """Everything of an episode; afterwards the fleet is well again, or the history says what is not."""
    roll = random.Random(f"load {plan.seed}")
    requests, arrivals = len(fleet.load.requests), len(fleet.arrivals)
    spans = len(fleet.spans)
    before = fleet.sums() or Sums()
    fleet.rpm_limit, fleet.limited_label = plan.rpm_limit, f"small-{plan.seed}"
    fleet.offer(fleet.new_configuration())
    history = History(plan.seed)
    await _heal(fleet, history, "before the load")
    async with asyncio.TaskGroup() as tasks:
        playing = tasks.create_task(fleet.load.play(plan, roll), name="load")
        for fault in plan.faults:
            tasks.create_task(_break(fleet, fault), name=str(fault))
    del playing
    await _heal(fleet, history, "after it")
    history.requests = fleet.load.requests[requests:]
    history.arrivals = fleet.arrivals[arrivals:]
    history.spans = fleet.spans[spans:] + [one for one in fleet.spans[:spans] if one.kind in ("revoked", "killed")]
    history.configurations = list(fleet.configurations)
    history.is_ledger_whole = not history.of("damaged") or all(
        ".spool" not in one.detail and ".db" not in one.detail for one in history.of("damaged")
    )
    await _settle(fleet, history, before)
    fleet.read_logs()
    history.node_lines = list(fleet.node_lines)
    history.records, fleet.records = fleet.records, []
    history.instance_of = dict(fleet.instance_of)
    history.leaks = await asyncio.to_thread(leaks, fleet)
    return history


async def _break(fleet: Fleet, fault: Fault) -> None:
    await asyncio.sleep(fault.at_s)
    began_s = time.monotonic()
    async with fleet.editing if fault.kind in CONFIG_FAULTS else contextlib.nullcontext():
        await ACTS.get(fault.kind, _sicken)(fleet, fault)
    fleet.spans.append(Span("fault", fault.subject, began_s, time.monotonic(), str(fault)))


# --- what can go wrong ------------------------------------------------------------------------------------------------


async def _kill(fleet: Fleet, fault: Fault) -> None:
    fleet.kill(fault.subject)


async def _damage(fleet: Fleet, fault: Fault) -> None:
    fleet.kill(fault.subject, lambda: fleet.damage(fault.subject, fault.number))


async def _stop(fleet: Fleet, fault: Fault) -> None:
    process, number = fleet.processes[fault.subject], fleet.processes[fault.subject].number
    running = fleet.signal(fault.subject, signal.SIGSTOP).running
    began_s = time.monotonic()
    await asyncio.sleep(fault.for_s)
    if running is not None and running.poll() is None:
        running.send_signal(signal.SIGCONT)
    fleet.spans.append(Span("stopped", f"{process.name} {number}", began_s, time.monotonic()))


async def _restart(fleet: Fleet, fault: Fault) -> None:
    fleet.signal(fault.subject, signal.SIGTERM)


async def _replace(fleet: Fleet, fault: Fault) -> None:
    await fleet.replace(fault.subject)


async def _disturb(fleet: Fleet, fault: Fault) -> None:
    link = fleet.links[fault.subject]
    began_s = time.monotonic()
    link.begin(fault.kind, fault.number)
    await asyncio.sleep(fault.for_s)
    link.heal()
    fleet.spans.append(Span("cut off", fault.subject, began_s, time.monotonic(), fault.kind))


async def _sicken(fleet: Fleet, fault: Fault) -> None:
    provider = fleet.providers[fault.subject]
    span = Span("unwell", provider.name, time.monotonic(), float("inf"), fault.kind)
    fleet.spans.append(span)
    if fault.kind == "refuses":
        await provider.refuse()
        await asyncio.sleep(fault.for_s)
        provider.listen()
    else:
        provider.illness = Illness(fault.kind, fault.number)
        await asyncio.sleep(fault.for_s)
        provider.illness = None
    span.to_s = time.monotonic() + (RETRY_AFTER_S if fault.kind == "429" else 0.0)


async def _edit(fleet: Fleet, fault: Fault) -> None:
    fleet.offer(fleet.new_configuration())


async def _write_halves(fleet: Fleet, fault: Fault) -> None:
    text = fleet.new_configuration()
    at = fault.number % len(text)
    with fleet.config_path.open("w") as file:
        file.write(text[:at])
        file.flush()
        await asyncio.sleep(fault.for_s)
        file.write(text[at:])


async def _mistake(fleet: Fleet, fault: Fault) -> None:
    fleet.offer(fleet.new_configuration(is_valid=False))
    await asyncio.sleep(fault.for_s)
    fleet.offer(fleet.new_configuration())


async def _remove(fleet: Fleet, fault: Fault) -> None:
    fleet.config_path.unlink()
    await asyncio.sleep(fault.for_s)
    fleet.offer(fleet.new_configuration())


async def _rotate(fleet: Fleet, fault: Fault) -> None:
    """New credentials of a provider, and soon the old ones are refused."""
    provider = fleet.providers[fault.subject]
    old = [key for name, key in fleet.configurations[-1].targets if name == provider.name]
    fleet.rotation[provider.name] += 1
    fleet.offer(fleet.new_configuration())
    await asyncio.sleep(REVOKED_AFTER_S)
    provider.revoked.update(old)
    fleet.spans += [Span("revoked", key, time.monotonic(), float("inf")) for key in old]


async def _disable(fleet: Fleet, fault: Fault) -> None:
    span = Span("disabled", fault.subject, time.monotonic(), float("inf"))
    fleet.spans.append(span)
    with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError, OSError):
        await set_state(fleet, fault.subject, providers_pb2.PROVIDER_STATE_DISABLED)
    await asyncio.sleep(fault.for_s)
    with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError, OSError):
        await set_state(fleet, fault.subject, providers_pb2.PROVIDER_STATE_ENABLED)


ACTS: Mapping[str, Act] = {
    "kill control": _kill,
    "kill worker": _kill,
    "damage control": _damage,
    "damage worker": _damage,
    "stop control": _stop,
    "stop worker": _stop,
    "restart control": _restart,
    "replace worker": _replace,
    "cut": _disturb,
    "hole": _disturb,
    "slow": _disturb,
    "torn": _disturb,
    "garbage": _disturb,
    "edit": _edit,
    "half-written": _write_halves,
    "invalid": _mistake,
    "remove": _remove,
    "rotate": _rotate,
    "disable": _disable,
}


async def set_state(fleet: Fleet, provider: str, state: providers_pb2.ProviderState.ValueType) -> None:
    """Enable or disable a provider by the admin API. Raises AioRpcError, OSError."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    address = (fleet.state / "control.address").read_text().strip()
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub = providers_pb2_grpc.ProviderServiceStub(channel)
        await stub.SetProviderState(providers_pb2.SetProviderStateRequest(provider=provider, state=state), timeout=3.0)


# --- and well again ---------------------------------------------------------------------------------------------------


async def _heal(fleet: Fleet, history: History, when: str) -> None:
    """Wait until everything runs, nobody is disabled, and every node serves the newest configuration."""
    try:
        await until(lambda: all(map(fleet.is_ready, fleet.processes.values())), "all processes run", HEALED_WITHIN_S)
        await until(
            lambda: all(one.running and one.running.poll() is not None for one in fleet.retiring), "drained", 30
        )
        fleet.retiring.clear()
        for span in fleet.spans:
            if span.kind == "disabled" and span.to_s == float("inf"):
                await _enable(fleet, span)
        await _served_everywhere(fleet)
    except TimeoutError as error:
        history.unhealed.append(f"{when}: {error}")


async def _enable(fleet: Fleet, span: Span) -> None:
    ends_s = time.monotonic() + HEALED_WITHIN_S
    while True:
        try:
            await set_state(fleet, span.subject, providers_pb2.PROVIDER_STATE_ENABLED)
        except (grpc.aio.AioRpcError, OSError):
            if time.monotonic() > ends_s:
                raise TimeoutError(f"{span.subject} cannot be enabled") from None
            await asyncio.sleep(0.05)
        else:
            span.to_s = time.monotonic() + 1.0  # until the nodes know
            return


async def _served_everywhere(fleet: Fleet) -> None:
    """Wait until both nodes answer under the newest configuration."""
    ends_s = time.monotonic() + HEALED_WITHIN_S
    seen: set[str] = set()
    while len(seen) < len(NODES):
        request = await fleet.load.ask()
        if request.outcome == COMPLETE and request.mark == fleet.newest_mark:
            seen.add(request.node)
        else:
            await asyncio.sleep(0.06)
        if time.monotonic() > ends_s:
            raise TimeoutError(
                f"not within {HEALED_WITHIN_S:.0f} s: {fleet.newest_mark} is served by all nodes; by {sorted(seen)}; last: {request}"
            )


async def _settle(fleet: Fleet, history: History, before: Sums) -> None:
    """Wait until the ledger holds all that it will ever hold of the episode."""
    may_begin_anew = any(".db" in one.detail for one in history.of("damaged"))
    fleet.read_logs()
    history.instance_of = dict(fleet.instance_of)  # which tell whose usage may be lost
    least = least_counted(history)["requests"]
    seen, since_s = fleet.sums(), time.monotonic()
    ends_s = since_s + HEALED_WITHIN_S
    while True:
        await asyncio.sleep(0.04)
        now_s = time.monotonic()
        if (found := await asyncio.to_thread(fleet.sums)) != seen or fleet.spools():
            seen, since_s = found, now_s
        counted = seen.requests - before.requests if seen is not None else -1
        if counted == len(history.requests) and now_s - since_s > 0.05:
            break
        is_enough = counted >= least or may_begin_anew or not history.is_ledger_whole
        if seen is not None and now_s - since_s > (SETTLED_AFTER_S if is_enough else MISSING_AFTER_S):
            break
        if now_s > ends_s:
            history.unhealed.append(f"usage is not delivered: {[str(one) for one in fleet.spools()]}")
            break
    if seen is not None:
        if may_begin_anew and seen.requests < before.requests:
            before = Sums()
        history.counted = Sums(
            seen.requests - before.requests,
            seen.served - before.served,
            seen.input_tokens - before.input_tokens,
            seen.output_tokens - before.output_tokens,
        )


# --- what must not be found -------------------------------------------------------------------------------------------


def leaks(fleet: Fleet) -> list[str]:
    """Canaries where they must not be: in a log, in any file of the state, and in what Prometheus reads."""
    found, fleet.leaks = fleet.leaks, []
    for path in sorted(fleet.state.rglob("*")):
        with contextlib.suppress(OSError):
            if path.is_file():
                found += canaries(path.read_bytes(), str(path.relative_to(fleet.directory)))
    with contextlib.suppress(OSError, ValueError):
        found += canaries(_metrics(fleet.processes["control"].log), "metrics")
    return found


def _metrics(log: Path) -> bytes:
    listen = log.read_text().partition('"metrics": "')[2].partition('"')[0]
    with urllib.request.urlopen(f"http://{listen}/metrics", timeout=5) as answer:
        return bytes(answer.read())
