"""The command: runs the checks in the order of the path, and goes on with what can still be seen."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from ccr_cli import cc, places
from ccr_cli.doctor import machine, path, plane
from ccr_cli.doctor.findings import Finding, fail, line, ok, skip, summary, warn
from ccr_cli.doctor.talk import NoAnswer, Talker
from ccr_cli.failure import EXIT_NOT_WELL, EXIT_USAGE, Failure
from ccr_cli.options import Control, Json, StateDir, Url
from ccr_cli.run import KEY_VARIABLE
from ccr_cli.screen import print_json

if TYPE_CHECKING:
    from ccr_client import ControlPlane

RECORD_WITHIN_S = 5.0
_WIDTH = 15


def doctor(
    billed: Annotated[
        bool, typer.Option("--billed", help="Also send requests that a provider may bill (some thousand tokens).")
    ] = False,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="For its requests; absent: the first that the relay lists.")
    ] = "",
    key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help=f"Holds the relay key (else ${KEY_VARIABLE}, if set).")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Ask each provider whether it is alive; free.")
    ] = True,
    url: Url = None,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Prove the whole path through the running relay, and name what is wrong on it, with the fix.

    Looks at the state directory, the control plane, the workers, providers and keys, clocks and Claude Code's surroundings, and sends
    requests: those that cost nothing, and with --billed (or if only the demo provider can get them) streams, pings, tools, thinking
    and one that is left in the middle.

    Exit codes: 0 nothing failed, 1 something did.

    Examples: `ccr doctor`, `ccr doctor --billed --model claude-haiku-4-5`, `ccr doctor --json`
    """
    if key_env and not os.environ.get(key_env):
        raise Failure(f"${key_env} is not set: it should hold the relay key", EXIT_USAGE)
    state = places.state_dir(state_dir, os.environ)
    key = os.environ.get(key_env or KEY_VARIABLE) or None
    examined = _Examination(state, url, control, key, billed, model, probe)
    found: list[Finding] = []
    for one in examined.findings():
        found.append(one)
        if not as_json:
            print(_coloured(line(one, _WIDTH), one.level), flush=True)
    failed = any(one.level == "fail" for one in found)
    if as_json:
        print_json({"healthy": not failed, "findings": [dataclasses.asdict(one) for one in found]})
    else:
        print(f"\n{summary(found)}")
    if failed:
        raise typer.Exit(EXIT_NOT_WELL)


def _coloured(text: str, level: str) -> str:
    """The line with its first word in colour, on a terminal that has some."""
    colour = {"ok": "green", "warn": "yellow", "fail": "red"}.get(level)
    if colour is None or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"{typer.style(level, fg=colour, bold=True)}{text[len(level) :]}"


class _Examination:
    """One run of the command."""

    def __init__(
        self, state: Path, url: str | None, control: str | None, key: str | None, billed: bool, model: str, probe: bool
    ) -> None:
        self._state, self._control, self._key = state, control, key
        self._billed, self._model, self._probe = billed, model, probe
        self._url = places.relay_url(url, state, os.environ)
        self._config: Mapping[str, Any] = {}

    def findings(self) -> Iterator[Finding]:
        """Everything, in order."""
        if not self._control and not os.environ.get("CCR_CONTROL"):
            yield from machine.state_dir(self._state)
            yield from machine.locks(self._state)
            yield from machine.disk(self._state)
        try:
            door = places.control_door(self._control, self._state, os.environ)
        except Failure as failure:
            yield fail("control", str(failure), "`ccr serve`, or name it with --control")
            yield from self._without_control()
            return
        yield from self._with_control(door)

    def _with_control(self, door: places.Door) -> Iterator[Finding]:
        from ccr_client import ControlError, connect

        from ccr_cli.control import failure

        with connect(door) as control:
            try:
                yield from self._plane(control, door)
            except ControlError as error:
                yield fail("control", str(failure(error, door)), "see the log of `ccr serve`")
                yield from self._without_control()
                return
            try:
                yield from self._path(control)
            except ControlError as error:
                yield fail("control", f"it went away in the middle: {error}", "see the log of `ccr serve`")

    def _without_control(self) -> Iterator[Finding]:
        yield from self._surroundings()
        if self._url:
            yield from self._port()

    def _plane(self, control: ControlPlane, door: places.Door) -> Iterator[Finding]:
        """What the control plane says. Raises ControlError if it does not answer."""
        import yaml
        from ccr_rpc.v1 import access_pb2, config_pb2, fleet_pb2, keys_pb2, stats_pb2

        from ccr_cli.reading import config_state, node_state

        who = control.access.WhoAmI(access_pb2.WhoAmIRequest())
        own = version("cc-relay")
        if who.software_version == own:
            yield ok("control", f"answers at {door.target}, version {own}")
        else:
            yield warn("control", f"is version {who.software_version}, this is {own}", "restart it after an update")
        at_s = control.stats.GetStats(stats_pb2.GetStatsRequest()).stats.at.ToMilliseconds() / 1000
        yield from plane.clock("clock", "the control plane's clock", at_s - time.time())
        config = control.config.GetConfig(config_pb2.GetConfigRequest())
        self._config = yaml.safe_load(config.redacted_yaml)
        yield from plane.config(config_state(config), config.overlay_entries)
        fleet = _settled(lambda: control.fleet.ListNodes(fleet_pb2.ListNodesRequest()))
        yield from plane.nodes([node_state(one) for one in fleet.nodes], fleet.newest_version, own)
        yield from self._providers(control)
        yield from plane.keys(control.keys.ListKeys(keys_pb2.ListKeysRequest()).keys)
        yield from self._surroundings()
        yield from machine.credentials(self._config, os.environ, self._key)

    def _providers(self, control: ControlPlane) -> Iterator[Finding]:
        from ccr_client import ControlError
        from ccr_rpc.v1 import providers_pb2

        from ccr_cli.control import PROBED_WITHIN_S
        from ccr_cli.plain import enum_word
        from ccr_cli.reading import provider_health

        for listed in control.providers.ListProviders(providers_pb2.ListProvidersRequest()).providers:
            one = listed
            if self._probe and listed.enabled:
                request = providers_pb2.ProbeProviderRequest(provider=listed.name)
                try:
                    one = control.providers.ProbeProvider(request, timeout=PROBED_WITHIN_S).provider
                except ControlError as error:
                    if error.status != "PERMISSION_DENIED":
                        raise
            yield from plane.provider(provider_health(one), enum_word(one, "state"))

    def _surroundings(self) -> Iterator[Finding]:
        files = [cc.settings_path(None, dict(os.environ))]
        files += [Path.cwd() / ".claude" / name for name in ("settings.json", "settings.local.json")]
        texts = {file: text for file in files if (text := places.read_line(file)) is not None}
        yield from machine.claude_code(os.environ, texts, self._relay())

    def _relay(self) -> str | None:
        """The relay's URL; the configuration's, if nothing else says it."""
        if self._url:
            return self._url
        listen = (self._config.get("server") or {}).get("listen")
        return places.url_of_listen(listen) if listen else None

    def _port(self) -> Iterator[Finding]:
        relay = self._relay()
        if relay is None:
            yield fail("port", "nobody knows where the relay listens", "name it with --url")
        elif urlsplit(relay).scheme not in ("http", "https"):
            yield fail("port", f"{relay} is no base URL", "such as http://127.0.0.1:8787")
        else:
            yield from path.port(relay)

    def _path(self, control: ControlPlane) -> Iterator[Finding]:
        """Requests through the relay."""
        port = list(self._port())
        yield from port
        relay = self._relay()
        if relay is None or any(one.level == "fail" for one in port):
            yield skip("requests", "none was sent: the relay does not answer")
            return
        talker = Talker(relay, self._key, f"ccr-doctor-{uuid.uuid4()}")
        try:
            mode = ((self._config.get("server") or {}).get("auth") or {}).get("mode")
            auth = list(path.auth(talker, None if mode is None else mode != "none"))
            yield from auth
            if any(one.level == "fail" for one in auth):
                yield skip("requests", "none was sent: the relay does not take us")
                return
            yield from self._requests(control, talker)
        except NoAnswer as error:
            yield fail("requests", f"the relay broke off: {error}", path.LOG_HINT)

    def _requests(self, control: ControlPlane, talker: Talker) -> Iterator[Finding]:
        model = self._model or _first_model(talker)
        if model is None:
            yield fail(
                "models", "the relay lists none", "enable a provider, give one `models`, or name a model with --model"
            )
            return
        yield from path.count_tokens(talker, model, time.time)
        is_demo = _only_demo(control)
        if not (is_demo or self._billed):
            yield skip("stream", "streams, pings, tools, thinking and cancelling may be billed", "ccr doctor --billed")
            return
        told = path.TO_DEMO if is_demo else path.TO_MODEL
        yield from path.stream(talker, model, told, is_demo)
        yield from path.tools(talker, model, told, is_demo)
        yield from path.thinking(talker, model, told)
        yield from path.cancel(talker, model, told, lambda request_id: _outcome(control, request_id))
        yield from _accounted(control, talker)


def _settled(look: Callable[[], Any]) -> Any:
    """The fleet; workers that are just taking up a new snapshot are given a second."""
    until_s = time.monotonic() + 1.0
    while True:
        found = look()
        behind = [one for one in found.nodes if one.connected and one.served_version != found.newest_version]
        if not behind or time.monotonic() > until_s:
            return found
        time.sleep(0.05)


def _first_model(talker: Talker) -> str | None:
    listed: Iterable[Any] = talker.get("/v1/models?limit=100").json.get("data") or ()
    return next((str(one["id"]) for one in listed if isinstance(one, dict) and one.get("id")), None)


def _only_demo(control: ControlPlane) -> bool:
    """Whether every provider that requests may go to is the demo on this machine, so that nothing is billed."""
    from ccr_rpc.v1 import providers_pb2

    listed = control.providers.ListProviders(providers_pb2.ListProvidersRequest()).providers
    enabled = [one for one in listed if one.enabled]
    return bool(enabled) and all(_is_demo(one.base_url) for one in enabled)


def _is_demo(url: str) -> bool:
    if urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
        return False
    try:
        return "open_streams" in Talker(url, None, "").get("/__demo/stats").json
    except NoAnswer:
        return False


def _outcome(control: ControlPlane, request_id: str) -> str | None:
    """How a request ended; None: it has not been told yet."""
    from ccr_client import ControlError
    from ccr_rpc.v1 import routes_pb2

    from ccr_cli.plain import enum_word

    try:
        found = control.routes.ExplainRequest(routes_pb2.ExplainRequestRequest(request_id=request_id))
    except ControlError as error:
        if error.status == "NOT_FOUND":
            return None
        raise
    return enum_word(found.record, "outcome")


def _accounted(control: ControlPlane, talker: Talker) -> Iterator[Finding]:
    """Have the requests of this run arrived in the statistics?"""
    from ccr_rpc.v1 import records_pb2

    request = records_pb2.ListRecordsRequest(filter=records_pb2.RecordFilter(session=talker.session), page_size=50)
    until_s = time.monotonic() + RECORD_WITHIN_S
    while not (found := control.records.ListRecords(request).records):
        if time.monotonic() > until_s:
            yield fail("records", f"no request was reported within {RECORD_WITHIN_S:.0f} s", "see the workers' log")
            return
        time.sleep(0.05)
    yield ok("records", f"{len(found)} requests of this run are told of: ccr records --session {talker.session}")
