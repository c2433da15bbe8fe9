"""`python -m ccr_control.offline`, and the configurations that come with the project."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import yaml
from ccr_control import offline
from ccr_control.core.config import load
from ccr_control.core.provider_schema import PresetName

ROOT = Path(__file__).parents[2]
GOOD = "version: 1\nserver: {auth: {mode: none}}\nproviders: [{name: local, type: ollama, headers: {x-auth: abc}}]\n"


class Run:
    """Runs a command as from a shell."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        try:
            code = offline.main(arguments)
        except SystemExit as ended:  # argparse's way
            code = int(ended.code or 0)
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run(capsys)


def test_a_good_file_is_valid(run: Run) -> None:
    """Exit code 0, for scripts."""
    Path("ccr.yaml").write_text(GOOD)
    assert run("validate", "ccr.yaml") == (0, "ccr.yaml: valid\n", "")


def test_all_problems_go_to_stderr_a_line_each(run: Run) -> None:
    """Editors and CI read file:line:column."""
    Path("ccr.yaml").write_text(GOOD.replace("ollama", "olama").replace("mode: none", "mode: nun"))
    code, out, err = run("validate", "ccr.yaml")
    assert (code, out) == (1, "")
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["ccr.yaml:2:23", "server.auth.mode"],
        ["ccr.yaml:3:33", "providers[0].type"],
    ]


def test_warnings_do_not_fail(run: Run) -> None:
    """They are said, and that is all."""
    Path("ccr.yaml").write_text(GOOD.replace("server: {auth: {mode: none}}\n", ""))
    code, out, err = run("validate", "ccr.yaml")
    assert (code, out) == (0, "ccr.yaml: valid\n")
    assert err.startswith("warning: ccr.yaml:1:1: server: no `auth`")


def test_standard_input_can_be_checked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """For editors, and for texts that are no file yet."""
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO(b"version = 2\nproviders = [{name = 'a', type = 'ollama'}]\n"))
    )
    code, _, err = run("validate", "-", "--format", "toml")
    assert code == 1
    assert err.startswith("<stdin>:1:11: version: must be 1")


def test_toml_is_known_by_its_name(run: Run) -> None:
    """The same for `show`."""
    Path("ccr.toml").write_text('version = 1\n[[providers]]\nname = "local"\ntype = "ollama"\n')
    assert run("validate", "ccr.toml")[0] == 0


def test_bytes_that_are_no_text_are_a_problem(run: Run) -> None:
    """Not a traceback."""
    Path("ccr.yaml").write_bytes(b"a: \xff")
    assert run("validate", "ccr.yaml") == (1, "", "ccr.yaml:1:4: byte 0xff is not UTF-8: save the file as UTF-8\n")


def test_show_prints_what_is_in_force_without_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be pasted into a bug report."""
    monkeypatch.setenv("A_KEY", "very-secret-value")
    Path("ccr.yaml").write_text(GOOD.replace("type: ollama", 'type: ollama, keys: [{key: "${A_KEY}"}]'))
    code, out, _ = run("show", "ccr.yaml")
    shown = yaml.safe_load(out)
    assert code == 0
    assert shown["providers"][0]["keys"][0]["key"] == "***"
    assert shown["providers"][0]["headers"] == {"x-auth": "***"}
    assert "very-secret-value" not in out


def test_certificates_are_found_beside_the_file(run: Run) -> None:
    """A relative path means the same wherever the command is run from."""
    Path("etc").mkdir()
    Path("etc/corp.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    Path("etc/ccr.yaml").write_text(GOOD.replace("type: ollama", "type: ollama, ca_file: corp.pem"))
    assert run("validate", "etc/ccr.yaml")[0] == 0


@pytest.mark.parametrize("arguments", [(), ("validate",), ("frobnicate",), ("validate", "missing.yaml"), ("show", ".")])
def test_wrong_use_is_another_code(run: Run, arguments: tuple[str, ...]) -> None:
    """A script can tell a bad file from a bad command."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err


def test_schema_is_json(run: Run) -> None:
    """For `yaml-language-server`."""
    code, out, _ = run("schema")
    assert (code, json.loads(out)["title"]) == (0, "cc-relay configuration")


def test_init_writes_once(run: Run) -> None:
    """Nobody's configuration is overwritten by accident."""
    assert run("init", "--out", "new.yaml")[0] == 0
    Path("new.yaml").write_text("mine")
    code, _, err = run("init", "--out", "new.yaml")
    assert (code, err) == (2, "new.yaml: exists already; --force replaces it\n")
    assert Path("new.yaml").read_text() == "mine"
    assert run("init", "--out", "new.yaml", "--force")[0] == 0
    assert run("init", "--out", "-")[1] == Path("new.yaml").read_text()
    assert run("init", "--out", "no/such/folder.yaml")[0] == 2


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    """That is how the command line calls it."""
    command = [sys.executable, "-m", "ccr_control.offline", "init", "--out", str(tmp_path / "a.yaml")]
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0


def starter() -> str:
    return resources.files("ccr_control").joinpath("starter.yaml").read_text(encoding="utf-8")


def variables(text: str) -> dict[str, str]:
    return {name: f"value-of-{name}" for name in re.findall(r"\$\{([A-Z_]+)", text)}


def test_the_starter_is_valid_as_it_is() -> None:
    """One variable is all it needs."""
    loaded = load(starter(), file="ccr.yaml", fmt="yaml", env={"ANTHROPIC_API_KEY": "k"})
    assert loaded.warnings == ()
    assert [provider.type for provider in loaded.config.providers] == ["anthropic"]


def test_everything_the_starter_comments_out_is_valid_too() -> None:
    """Removing a `#` must not lead into an error."""
    text = re.sub(r"(?m)^#(?=  )", "", starter()).replace("  auth: {mode: none}\n", "")
    loaded = load(text, file="ccr.yaml", fmt="yaml", env=variables(text))
    assert loaded.warnings == ()
    assert {provider.type for provider in loaded.config.providers} == {
        "anthropic",
        "zai",
        "ollama",
        "anthropic-compatible",
    }


def test_the_example_is_valid_and_covers_every_kind_of_upstream() -> None:
    """It is what people copy from."""
    text = (ROOT / "examples" / "ccr.yaml").read_text()
    loaded = load(text, file="ccr.yaml", fmt="yaml", env=variables(text))
    assert loaded.warnings == ()
    providers = loaded.config.providers
    assert {provider.type for provider in providers} == {"anthropic", "zai", "ollama", "anthropic-compatible"}
    assert {provider.preset for provider in providers} - {None} == set(PresetName.__args__)  # type: ignore[attr-defined]
    assert {key.scope for key in providers[0].keys} == {"org-a", "org-b"}
