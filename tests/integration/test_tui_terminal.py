"""The dashboard in a real terminal, in front of the real relay."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import urllib.request
from pathlib import Path

import pytest
from ccr_client import connect
from ccr_rpc.v1 import keys_pb2, ledger_pb2, stats_pb2
from ccr_tui.core import figures, words
from support.ccr import ccr
from support.serving import REAL_SERVE, Relay, environment, is_alive, served, until
from support.terminal import terminal
from support.totals import counted

DEMO = ("--demo", "--listen", "127.0.0.1:0")
CCR = (sys.executable, "-m", "ccr_cli.main")
SIZES = [(80, 24), (200, 60)]
VIEWS = {"3": "sliding", "4": "last", "6": "strategy", "7": "● serving", "8": "config.apply", "9": "● yes"}

pytestmark = pytest.mark.timeout(180)


def env(term: str = "xterm-256color", **more: str) -> dict[str, str]:
    """As on a machine of somebody else's."""
    return environment(TERM=term, LC_ALL="C.UTF-8", **more)


def ask(url: str) -> None:
    """A request through the relay."""
    body = {"model": "claude-sonnet-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": "hello"}]}
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01", "authorization": "Bearer relay"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(urllib.request.Request(f"{url}/v1/messages", json.dumps(body).encode(), headers), timeout=30).read()


def tui(relay: Relay) -> list[str]:
    return [*CCR, "tui", "--state-dir", str(relay.state)]


@pytest.mark.parametrize("size", SIZES)
def test_the_dashboard_shows_and_changes_the_real_relay(tmp_path: Path, size: tuple[int, int]) -> None:
    """Figures move while traffic flows; a provider is disabled by two keys, and the command line agrees."""
    with served(tmp_path, None, *DEMO, command=REAL_SERVE) as relay:
        relay.wait_ready()
        with terminal(tmp_path, tui(relay), size, env()) as screen:
            screen.sees("● live", "0 ever", "demo", "admin")
            for _ in range(3):
                ask(relay.url)
            screen.sees("3 ever")
            screen.press("5")
            screen.sees("claude-sonnet-4-5", "demo/demo")
            screen.press("Enter")
            screen.sees("went where it went", "served 200")
            screen.press("q")
            for key, words in VIEWS.items():
                screen.press(key)
                screen.sees("● live", words)
            screen.press("2", "x")
            screen.sees("Disable demo?")
            screen.press("y")
            screen.sees("○ disabled")
            (shown,) = json.loads(ccr("providers", "list", "--json", "--state-dir", str(relay.state)).stdout)
            assert shown["is_enabled"] is False
            screen.press("8")
            screen.sees("provider.disable", "socket")
            screen.press("q")
            screen.sees("exit=0")
        assert relay.process.poll() is None, "the relay goes on"


def test_what_is_shown_is_what_the_api_says_and_the_ledger(tmp_path: Path) -> None:
    """Requests, tokens and cost: one number in three places, the third of them the rows of the store itself."""
    with served(tmp_path, None, *DEMO, command=REAL_SERVE) as relay:
        relay.wait_ready()
        with terminal(tmp_path, tui(relay), (200, 60), env()) as screen:
            for _ in range(7):
                ask(relay.url)
            screen.sees("7 ever")
            with connect(state_dir=relay.state) as plane:
                stats = plane.stats.GetStats(stats_pb2.GetStatsRequest()).stats
                total = stats.total
                ledger = plane.ledger.GetCostReport(ledger_pb2.GetCostReportRequest()).total
                (key,) = plane.keys.ListKeys(keys_pb2.ListKeysRequest()).keys
            rows = {
                name: counted(relay, name)
                for name in ("requests", "input_tokens", "output_tokens", "cost_micro_usd", "saved_micro_usd")
            }
            assert rows == {
                "requests": ledger.requests,
                "input_tokens": ledger.tokens.input,
                "output_tokens": ledger.tokens.output,
                "cost_micro_usd": ledger.cost_micro_usd,
                "saved_micro_usd": ledger.saved_micro_usd,
            }
            (line,) = stats.providers
            assert (line.figures.requests, line.figures.tokens, line.figures.cost_micro_usd, key.requests) == (
                ledger.requests,
                ledger.tokens,
                ledger.cost_micro_usd,
                ledger.requests,
            )
            assert (total.requests, total.tokens, total.cost_micro_usd) == (
                ledger.requests,
                ledger.tokens,
                ledger.cost_micro_usd,
            )
            assert ledger.requests == 7
            assert ledger.cost_micro_usd > 0
            screen.sees(
                f"{words.prompt_tokens(ledger.tokens)} in  {ledger.tokens.output} out",
                f"cost today  {figures.money(ledger.cost_micro_usd)}  saved by caches {figures.money(ledger.saved_micro_usd)}",
            )
            for view, cells in {
                "2": ("7", figures.count(words.tokens(ledger.tokens)), figures.money(ledger.cost_micro_usd)),
                "3": ("7",),
            }.items():
                screen.press(view)
                screen.sees("demo", *cells)
                until(lambda: any(text.startswith("demo  ") for text in screen.text.splitlines()), "the row is drawn")
                (row,) = [text.split() for text in screen.text.splitlines() if text.startswith("demo  ")][:1]
                assert set(cells) <= set(row), row


@pytest.mark.long
def test_the_window_may_change_its_size(tmp_path: Path) -> None:
    """To something nobody would choose, and back."""
    with served(tmp_path, None, *DEMO, command=REAL_SERVE) as relay:
        relay.wait_ready()
        with terminal(tmp_path, tui(relay), (200, 60), env()) as screen:
            screen.sees("● live", "1 overview", "saved by caches")
            for width, height in ((20, 6), (80, 24), (200, 60)):
                screen.resize(width, height)
                screen.press("2", "1")
                screen.sees("ccr ● live")
            screen.sees("saved by caches", "? help")


@pytest.mark.long
@pytest.mark.parametrize(
    ("term", "more", "allowed"),
    [
        ("xterm", {}, r"(0|1|2|4|7|22|24|27|39|49|3[0-7]|4[0-7]|9[0-7]|10[0-7])"),
        ("xterm-256color", {"NO_COLOR": "1"}, r"(0|1|2|4|7|22|24|27|39|49)"),
    ],
)
def test_colours_are_the_terminals_own_or_none(tmp_path: Path, term: str, more: dict[str, str], allowed: str) -> None:
    """Sixteen are enough, and NO_COLOR means none: states are words."""
    with served(tmp_path, None, *DEMO, command=REAL_SERVE) as relay:
        relay.wait_ready()
        with terminal(tmp_path, tui(relay), (80, 24), env(term, **more)) as screen:
            screen.sees("● live", "● closed")
            for key in ("2", "x"):
                screen.press(key)
            screen.sees("Disable demo?")
            codes = {code for run in re.findall(r"\x1b\[([\d;]*)m", screen.coloured) for code in run.split(";") if code}
            assert codes, "something is bold at least"
            assert not [code for code in codes if not re.fullmatch(allowed, code)]


def test_it_says_that_the_control_plane_is_away_and_comes_back(tmp_path: Path) -> None:
    """Over a restart of the real one."""
    with served(tmp_path, None, *DEMO, command=REAL_SERVE) as relay:
        relay.wait_ready()
        with terminal(tmp_path, tui(relay), (100, 30), env()) as screen:
            screen.sees("● live")
            os.kill(relay.pids("ccr-control")[-1], signal.SIGSTOP)
            screen.sees("✗ away", "no control plane answers", "last ones known")
            os.kill(relay.pids("ccr-control")[-1], signal.SIGCONT)
            screen.sees("● live")
            os.kill(relay.pids("ccr-control")[-1], signal.SIGKILL)
            until(lambda: len(relay.pids("ccr-control")) == 2, "the supervisor starts another one")
            ask(relay.url)
            screen.sees("● live", "1 ever")


def serve_tui(state: Path) -> list[str]:
    return [*CCR, "serve", "--tui", *DEMO, "--state-dir", str(state)]


def started(log: Path) -> list[int]:
    """Process ids of everything that the relay behind the dashboard started."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [int(line["pid"]) for line in lines if line.get("event") == "child_started"]


def test_serve_with_the_dashboard_ends_both_after_asking(tmp_path: Path) -> None:
    """One command for everything; its log is in a file, not on the screen."""
    state = tmp_path / "state"
    with terminal(tmp_path, serve_tui(state), (80, 24), env()) as screen:
        screen.sees("● live", "demo")
        pids = started(state / "serve.log")
        assert len(pids) >= 2
        assert (state / "serve.log").stat().st_mode & 0o777 == 0o600
        screen.press("q")
        screen.sees("End the relay, too?")
        screen.press("n")
        screen.sees("all is well")
        screen.press("q")
        screen.sees("End the relay, too?")
        screen.press("y")
        screen.sees("exit=0")
        assert not any(map(is_alive, pids))


@pytest.mark.long
def test_serve_with_the_dashboard_ends_with_its_window(tmp_path: Path) -> None:
    """Nothing is left behind that nobody sees."""
    state = tmp_path / "state"
    with terminal(tmp_path, serve_tui(state), (80, 24), env()) as screen:
        screen.sees("● live", "demo")
        pids = started(state / "serve.log")
        screen.hang_up()
        until(lambda: not any(map(is_alive, pids)), "everything ends", within_s=30.0)


@pytest.mark.long
def test_serve_with_a_dashboard_that_fails_goes_on(tmp_path: Path) -> None:
    """It is only the window. Ctrl-C ends the relay then: the terminal is as it was before."""
    state = tmp_path / "state"
    with terminal(tmp_path, serve_tui(state), (100, 24), env()) as screen:
        screen.sees("● live", "demo")
        pids = started(state / "serve.log")
        os.kill(process_of(state, "ccr_tui"), signal.SIGKILL)
        screen.sees("the dashboard failed; the relay goes on")
        assert all(map(is_alive, pids))
        assert screen.flag("mouse_any_flag") == "0"
        ask((state / "relay.address").read_text().strip())
        screen.press("C-c")
        screen.sees("exit=")
        assert not any(map(is_alive, pids))


def process_of(state: Path, module: str) -> int:
    """The process that runs a module of ours with a state directory."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if module.encode() in words and str(state).encode() in words:
                return int(entry.name)
    raise AssertionError(f"nothing runs {module} with {state}")


@pytest.mark.long
@pytest.mark.parametrize(("flags", "wanted"), [((), "1"), (("--no-mouse",), "0")])
def test_the_mouse_is_the_terminal_s_own_if_somebody_wants_it(
    tmp_path: Path, flags: tuple[str, ...], wanted: str
) -> None:
    """To select text; keys do all the same."""
    with served(tmp_path, None, *DEMO, command=REAL_SERVE) as relay:
        relay.wait_ready()
        with terminal(tmp_path, [*tui(relay), *flags], (80, 24), env()) as screen:
            screen.sees("● live", "● closed")
            assert screen.flag("mouse_any_flag") == wanted
            screen.press("2", "Enter")
            screen.sees("Accounts", "escape back")


def test_serve_with_the_dashboard_says_why_it_cannot_start(tmp_path: Path) -> None:
    """The log is in a file, but its last words are for whoever waits."""
    (tmp_path / "bad.yaml").write_text("version: 1\nproviders: 5\n")
    command = [*CCR, "serve", "--tui", "--config", str(tmp_path / "bad.yaml"), "--state-dir", str(tmp_path / "state")]
    with terminal(tmp_path, command, (120, 24), env()) as screen:
        screen.sees("the configuration cannot be used", "providers", "exit=78")


def test_a_pipe_is_no_terminal(tmp_path: Path) -> None:
    """Instead of escape sequences in somebody's log."""
    for arguments in (("tui",), ("serve", "--tui")):
        done = ccr(*arguments, "--state-dir", str(tmp_path))
        assert done.returncode == 2
        assert "needs a terminal" in done.stderr
        assert "\x1b" not in done.stdout + done.stderr


def test_without_a_relay_it_says_how_to_start_one(tmp_path: Path) -> None:
    """The first thing that somebody tries."""
    with terminal(tmp_path, [*CCR, "tui", "--state-dir", str(tmp_path)], (120, 24), env()) as screen:
        screen.sees("no control plane runs here", "ccr serve", "exit=3")
