"""ccr-control follows its configuration file, however it is saved, and keeps the last good one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest
from ccr_control.core.supervision import STARTED_AGAIN
from ccr_control.shell.watcher import LOOK_ANYWAY_MS
from ccr_rpc.v1 import config_pb2, config_pb2_grpc, routes_pb2, routes_pb2_grpc
from support.control import CONFIG, Control, running_control, until
from support.fake_node import FakeNode

BAD = CONFIG.replace("type: anthropic", "type: anthropic\n    colour: green")


def labelled(label: str) -> str:
    return CONFIG.replace("team-a", label)


@dataclass
class Scene:
    """A running control plane with a node that watches."""

    control: Control
    channel: grpc.aio.Channel
    node: FakeNode

    async def shows(self, label: str) -> None:
        """Wait until the node serves a snapshot with that key."""
        await self.node.got(lambda s: s.providers[0].keys[0].label == label)

    async def config(self) -> config_pb2.GetConfigResponse:
        return await config_pb2_grpc.ConfigServiceStub(self.channel).GetConfig(config_pb2.GetConfigRequest())

    async def reload(self) -> config_pb2.ReloadConfigResponse:
        return await config_pb2_grpc.ConfigServiceStub(self.channel).ReloadConfig(config_pb2.ReloadConfigRequest())

    def save(self, text: str) -> None:
        """As editors do: write beside it, then rename."""
        half = self.control.config_path.with_name(".ccr.yaml.swp")
        half.write_text(text)
        half.replace(self.control.config_path)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_control(tmp_path) as control, control.channel() as channel, FakeNode(channel).watching() as node:
        await node.got()
        yield Scene(control, channel, node)


async def test_an_atomic_save_is_followed_again_and_again(scene: Scene) -> None:
    """A watch on the file itself would go deaf after the first."""
    for label in ("one", "two", "three"):
        scene.save(labelled(label))
        await scene.shows(label)


async def test_a_write_in_place_is_followed(scene: Scene) -> None:
    scene.control.config_path.write_text(labelled("in-place"))
    await scene.shows("in-place")


async def test_a_swapped_symbolic_link_is_followed(tmp_path: Path) -> None:
    """As Kubernetes mounts configuration: ccr.yaml → ..data/ccr.yaml, ..data → a new directory each time."""
    control = Control(tmp_path)
    folder = control.config_path.parent
    control.config_path.unlink()

    def mount(label: str) -> None:
        (folder / f"..{label}").mkdir()
        (folder / f"..{label}" / "ccr.yaml").write_text(labelled(label))
        (folder / "..data_tmp").symlink_to(f"..{label}")
        (folder / "..data_tmp").replace(folder / "..data")

    mount("first")
    control.config_path.symlink_to("..data/ccr.yaml")
    async with running_control(tmp_path) as control, control.channel() as channel, FakeNode(channel).watching() as node:
        scene = Scene(control, channel, node)
        await scene.shows("first")
        for label in ("second", "third"):
            mount(label)
            await scene.shows(label)
        (folder / "..third" / "ccr.yaml").write_text(labelled("fourth"))
        async with asyncio.timeout(LOOK_ANYWAY_MS / 1000 * 0.8):  # it was noticed, not found by looking now and then
            await scene.shows("fourth")


async def test_a_bad_edit_changes_nothing_and_is_shown_until_a_good_one(scene: Scene) -> None:
    version = scene.node.versions[-1]
    scene.save(BAD)
    await until(lambda: scene.control.event("config_refused"), "the refusal is logged")
    config = await scene.config()
    assert [(p.line, p.path) for p in config.refusal.problems] == [(6, "providers[0].colour")]
    assert config.snapshot_version == version

    scene.save(labelled("good-again"))
    await scene.shows("good-again")
    assert not (await scene.config()).HasField("refusal")
    assert scene.node.versions == [version, version + 1]


async def test_taking_a_bad_edit_back_clears_the_refusal_and_publishes_nothing(scene: Scene) -> None:
    version = scene.node.versions[-1]
    scene.save(BAD)
    await until(lambda: scene.control.event("config_refused"), "the refusal is logged")
    scene.save(CONFIG)
    await until(lambda: scene.control.event("config_good_again"), "the refusal is cleared")
    config = await scene.config()
    assert not config.HasField("refusal")
    assert config.snapshot_version == version


async def test_the_same_mistake_is_logged_once(scene: Scene) -> None:
    scene.save(BAD)
    await until(lambda: scene.control.event("config_refused"), "the refusal is logged")
    await scene.reload()
    os.utime(scene.control.config_path)
    assert (await scene.reload()).problems
    assert len(scene.control.events("config_refused")) == 1


async def test_a_deleted_file_keeps_the_configuration_until_it_is_back(scene: Scene) -> None:
    version = scene.node.versions[-1]
    scene.control.config_path.unlink()
    await until(lambda: scene.control.event("config_refused"), "the refusal is logged")
    config = await scene.config()
    assert [problem.message for problem in config.refusal.problems] == ["there is no such file"]
    assert config.snapshot_version == version

    scene.control.config_path.write_text(CONFIG)
    await until(lambda: scene.control.event("config_good_again"), "the refusal is cleared")
    scene.save(labelled("after"))
    await scene.shows("after")


async def test_half_a_file_is_refused_and_the_rest_of_it_accepted(scene: Scene) -> None:
    """Not every editor saves atomically."""
    text = labelled("whole")
    with scene.control.config_path.open("w") as file:
        file.write(text[: text.index("providers")])
        file.flush()
        await until(lambda: scene.control.event("config_refused"), "the half is refused")
        file.write(text[text.index("providers") :])
    await scene.shows("whole")


async def test_an_edit_without_effect_publishes_nothing(scene: Scene) -> None:
    version = scene.node.versions[-1]
    scene.save(CONFIG + "\n# only a remark\n")
    reloaded = await scene.reload()
    assert not reloaded.changed
    assert reloaded.snapshot_version == version


async def test_reload_answers_with_the_version_that_it_made(scene: Scene) -> None:
    scene.save(labelled("by-hand"))
    await scene.reload()
    await scene.shows("by-hand")
    assert scene.node.versions == [1, 2]
    assert (await scene.reload()).snapshot_version == 2


async def test_reload_answers_with_the_problems(scene: Scene) -> None:
    scene.save(BAD)
    reloaded = await scene.reload()
    assert not reloaded.changed
    assert [problem.path for problem in reloaded.problems] == ["providers[0].colour"]


async def test_sighup_reads_the_file_again(scene: Scene) -> None:
    scene.save(BAD)
    await until(lambda: scene.control.event("config_refused"), "the refusal is logged")
    scene.save(labelled("after-sighup"))
    scene.control.process.send_signal(signal.SIGHUP)
    await scene.shows("after-sighup")
    assert scene.control.process.poll() is None


async def test_what_is_bound_at_the_start_waits_for_a_restart_and_says_so(scene: Scene) -> None:
    scene.save(labelled("moved").replace("127.0.0.1:0", "127.0.0.1:9999") + "server: {workers: 3}\n")
    await scene.shows("moved")
    assert list((await scene.config()).restart_needed) == ["server.workers", "control.listen"]
    assert scene.control.event("restart_needed")["changed"] == ["server.workers", "control.listen"]

    scene.save(labelled("moved-back"))
    await scene.shows("moved-back")
    assert not (await scene.config()).restart_needed


@pytest.mark.parametrize(
    ("moved", "name"),
    [
        ("control: {listen: '127.0.0.1:0', web_listen: '127.0.0.1:9999'}", "control.web_listen"),
        ("control: {listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:9999'}", "control.metrics_listen"),
        ("control: {listen: '127.0.0.1:0'}\nserver: {drain_timeout: 3s}", "server.drain_timeout"),
    ],
)
async def test_whatever_only_a_start_binds_is_named(scene: Scene, moved: str, name: str) -> None:
    """Whoever moves the web page and reads that all is well looks for it in vain."""
    before = (await scene.config()).loaded_at
    text = labelled("whatever").replace('control: {listen: "127.0.0.1:0"}', moved)
    assert moved in text
    scene.save(text)
    await scene.reload()
    config = await scene.config()
    assert config.loaded_at != before
    assert list(config.restart_needed) == [name]


async def kept(control: Control, number: int) -> None:
    """Wait until a revision is in force and in the store."""
    async with control.channel() as channel:
        stub = config_pb2_grpc.ConfigServiceStub(channel)

        async def is_kept() -> bool:
            return (await stub.GetConfig(config_pb2.GetConfigRequest())).revision == number

        await until(is_kept, f"revision {number}")


async def test_a_control_plane_that_starts_again_takes_what_was_in_force(tmp_path: Path) -> None:
    """A mistake that was saved an hour ago shows only then, and workers need circuits, budgets and credentials all the same.

    Whoever starts the relay is told at once instead.
    """
    async with running_control(tmp_path, labelled("first")) as control:
        await kept(control, 1)
        control.kill()
        for number, wrong in enumerate((BAD, None), 1):
            if wrong is None:
                control.config_path.unlink()
            else:
                control.config_path.write_text(wrong)
            control.env = {}
            control.launch()
            assert await control.exited() == 78
            control.env = {STARTED_AGAIN: "1"}
            await control.start()
            async with control.channel() as channel, FakeNode(channel).watching() as node:
                scene = Scene(control, channel, node)
                await scene.shows(("first", "mended")[number - 1])
                await until(lambda: control.event("config_refused"), "the refusal")
                assert (await scene.config()).refusal.problems
                scene.save(labelled(("mended", "mended-again")[number - 1]))
                await scene.shows(("mended", "mended-again")[number - 1])
                assert not (await scene.config()).refusal.problems
                await kept(control, number + 1)
            control.kill()
        control.config_path.write_text(BAD)
        (control.state_dir / "store.key").unlink()
        control.launch()
        assert await control.exited() == 78, "without anything that could be read in its place"


async def test_certificates_are_found_beside_the_file_by_everything_that_reads_it(tmp_path: Path) -> None:
    """A service starts in `/`, wherever its configuration is, and `ccr config validate` looks beside the file."""
    text = labelled("beside").replace("type: anthropic", "type: anthropic\n    ca_file: corp.pem")
    control = Control(tmp_path, text)
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    control.config_path.with_name("corp.pem").write_text(pem)
    async with running_control(tmp_path, text) as started, started.channel() as channel:
        stub = config_pb2_grpc.ConfigServiceStub(channel)
        assert not (await stub.ValidateConfig(config_pb2.ValidateConfigRequest(text=text))).problems
        assert not (await stub.DiffConfig(config_pb2.DiffConfigRequest(text=text))).problems
        assert not (await stub.ReloadConfig(config_pb2.ReloadConfigRequest())).problems
        ask = routes_pb2.ExplainRouteRequest(config=text.encode())
        ask.request.model = "claude-haiku-4-5"
        async with FakeNode(channel).watching() as node:
            assert pem in {provider.ca_pem for provider in (await node.got()).providers}
            with pytest.raises(grpc.aio.AioRpcError) as asked:  # this node answers no questions: the text was good
                await routes_pb2_grpc.RouteServiceStub(channel).ExplainRoute(ask)
            assert asked.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_the_configuration_is_shown_without_secrets(scene: Scene) -> None:
    config = await scene.config()
    assert "not-a-real-key" not in str(config)
    assert "label: team-a" in config.redacted_yaml
    assert config.source == str(scene.control.config_path)
    assert "not-a-real-key" not in scene.control.log_text()


async def test_a_text_is_checked_without_being_applied(scene: Scene) -> None:
    stub = config_pb2_grpc.ConfigServiceStub(scene.channel)
    good = await stub.ValidateConfig(config_pb2.ValidateConfigRequest(text=labelled("candidate")))
    bad = await stub.ValidateConfig(config_pb2.ValidateConfigRequest(text=BAD))
    toml = await stub.ValidateConfig(
        config_pb2.ValidateConfigRequest(
            text='version = 1\n[[providers]]\nname = "a"\ntype = "ollama"\n', format=config_pb2.CONFIG_FORMAT_TOML
        )
    )
    assert not good.problems
    assert [(problem.file, problem.line) for problem in bad.problems] == [("<text>", 6)]
    assert not toml.problems
    assert scene.node.versions == [1]
