"""Configurations: every one that was in force is kept, compared, applied and put in force again."""

from __future__ import annotations

import stat
from pathlib import Path

import grpc
import pytest
from ccr_rpc.v1 import config_pb2, providers_pb2
from integration.test_changes import CONFIG, DISABLED, ROTATED_SECRET, Api, changing, refused, talking_to
from support.control import Control, running_control, until

SECOND = CONFIG.replace("weight: 3", "weight: 5")
BAD = CONFIG.replace("type: zai", "type: zay")


async def newest(api: Api) -> config_pb2.Revision:
    """The newest revision, once the one in force is kept."""

    async def is_kept() -> bool:
        return (await api.config.GetConfig(config_pb2.GetConfigRequest())).revision > 0

    await until(is_kept, "the revision is kept")
    return (await api.config.ListRevisions(config_pb2.ListRevisionsRequest(page_size=1))).revisions[0]


async def apply(api: Api, text: str, **more: object) -> config_pb2.ApplyConfigResponse:
    return await api.config.ApplyConfig(config_pb2.ApplyConfigRequest(text=text, **more))  # type: ignore[arg-type]


async def test_a_text_is_applied_and_taken_back(tmp_path: Path) -> None:
    """Rolling back makes the effective configuration byte-equal to what it was."""
    async with changing(tmp_path) as api:
        first = await newest(api)
        before = await api.config.GetConfig(config_pb2.GetConfigRequest())
        assert (first.number, first.applied_by, before.revision) == (1, "file", 1)
        path = api.control.config_path
        path.chmod(0o640)

        applied = await apply(api, SECOND, base_revision=1)
        assert not applied.problems
        assert (applied.revision.number, applied.revision.applied_by) == (2, "socket")
        assert "+  weight: 5" in applied.diff
        assert path.read_text() == SECOND
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.with_name("ccr.yaml.before").read_text() == CONFIG
        assert (await api.status("zai")).weight == 5
        assert (await api.served()).version == applied.snapshot_version

        back = await api.config.RollbackConfig(config_pb2.RollbackConfigRequest(revision=1))
        assert (back.revision.number, back.revision.rolled_back_to) == (3, 1)
        after = await api.config.GetConfig(config_pb2.GetConfigRequest())
        assert (after.redacted_yaml, after.config_hash) == (before.redacted_yaml, before.config_hash)
        assert path.read_text() == CONFIG
        assert [event.action for event in await api.audit()] == ["config.apply", "config.rollback"]


async def test_what_is_wrong_or_only_tried_changes_nothing(tmp_path: Path) -> None:
    async with changing(tmp_path) as api:
        await newest(api)
        version = (await api.served()).version
        tried = await apply(api, SECOND, dry_run=True)
        assert tried.diff
        assert not tried.HasField("revision")
        wrong = await apply(api, BAD)
        assert wrong.problems
        assert not wrong.HasField("revision")
        assert (await apply(api, CONFIG)).revision.number == 1, "it is in force already"
        for base in (2, 7):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await apply(api, SECOND, base_revision=base)
            assert caught.value.code() is grpc.StatusCode.ABORTED
        toml = config_pb2.ApplyConfigRequest(text="version = 1", format=config_pb2.CONFIG_FORMAT_TOML)
        await refused(api.config.ApplyConfig(toml), grpc.StatusCode.FAILED_PRECONDITION, "OTHER_FORMAT")
        nowhere = config_pb2.RollbackConfigRequest(revision=99)
        await refused(api.config.RollbackConfig(nowhere), grpc.StatusCode.NOT_FOUND, "NO_SUCH_REVISION")
        assert api.control.config_path.read_text() == CONFIG
        assert (await api.served()).version == version
        assert await api.audit() == []


async def test_a_file_that_cannot_be_written_is_not_half_applied(tmp_path: Path) -> None:
    async with changing(tmp_path) as api:
        await newest(api)
        folder = api.control.config_path.parent
        (folder / "ccr.yaml.before").mkdir()  # also root cannot replace a directory by a file
        request = config_pb2.ApplyConfigRequest(text=SECOND)
        await refused(api.config.ApplyConfig(request), grpc.StatusCode.FAILED_PRECONDITION, "FILE_NOT_WRITABLE")
        assert api.control.config_path.read_text() == CONFIG
        assert (await api.status("zai")).weight == 3
        in_force = await api.config.GetConfig(config_pb2.GetConfigRequest())
        assert (await newest(api)).config_hash == in_force.config_hash
        assert sorted(one.name for one in folder.iterdir()) == ["ccr.yaml", "ccr.yaml.before"]


async def test_an_edit_of_the_file_is_a_revision_too(tmp_path: Path) -> None:
    async with changing(tmp_path) as api:
        await newest(api)
        api.control.config_path.write_text(SECOND)

        async def is_second() -> bool:
            return (await newest(api)).number == 2

        await until(is_second, "the edit is a revision")
        diff = await api.config.DiffConfig(config_pb2.DiffConfigRequest(from_revision=1, to_revision=2))
        assert diff.paths == ["providers[1].weight"]
        none = await api.config.DiffConfig(config_pb2.DiffConfigRequest())
        assert (none.diff, list(none.paths)) == ("", [])
        rotated = config_pb2.DiffConfigRequest(text=SECOND.replace("not-a-real-zai-key", ROTATED_SECRET))
        diff = await api.config.DiffConfig(rotated)
        assert diff.paths == ["providers[1].keys[0].key"]
        assert ROTATED_SECRET not in diff.diff
        assert "not-a-real" not in diff.diff


async def test_the_overlay_is_shown_merged_and_cleared(tmp_path: Path) -> None:
    """What people changed can be put into the file, and no secret comes out."""
    async with changing(tmp_path) as api:
        await api.set_state("local", DISABLED)
        await api.providers.UpdateProvider(providers_pb2.UpdateProviderRequest(provider="zai", weight=8))
        shown = await api.config.GetOverlay(config_pb2.GetOverlayRequest())
        assert [(one.resource, one.field, one.configured, one.value, one.changed_by) for one in shown.entries] == [
            ("providers/local", "state", "enabled", "disabled", "socket"),
            ("providers/zai", "weight", "3", "8", "socket"),
        ]
        assert "not-a-real" not in shown.merged_text
        await check_merged(shown.merged_text)
        cleared = await api.config.ClearOverlay(config_pb2.ClearOverlayRequest(resource="providers/zai"))
        assert cleared.cleared == 1
        assert (await api.status("zai")).weight == 3
        assert (await api.status("local")).state == DISABLED
        assert (await api.config.ClearOverlay(config_pb2.ClearOverlayRequest())).cleared == 1
        assert (await api.config.GetConfig(config_pb2.GetConfigRequest())).overlay_entries == 0


async def check_merged(text: str) -> None:
    from ccr_control.core.config import load

    env = dict.fromkeys(
        ("CCR_ANTHROPIC_TEAM_A_KEY", "CCR_ANTHROPIC_TEAM_B_KEY", "CCR_ZAI_ZAI_KEY"), "a-secret-of-some-length"
    )
    config = load(text, file="merged", fmt="yaml", env=env).config
    found = {one.name: (one.enabled, one.weight) for one in config.providers}
    assert found == {"anthropic": (True, 1), "zai": (True, 8), "local": (False, 1)}


async def test_revisions_outlive_a_kill(tmp_path: Path) -> None:
    async with running_control(tmp_path, CONFIG) as control:
        async with talking_to(control) as api:
            await newest(api)
            await apply(api, SECOND)
            control.kill()
        await control.start()
        async with talking_to(control) as api:
            assert (await newest(api)).number == 2, "the same configuration is no new revision"
            back = await api.config.RollbackConfig(config_pb2.RollbackConfigRequest(revision=1))
            assert back.revision.number == 3
            assert control.config_path.read_text() == CONFIG
        control.kill()
        check_sealed(control)


def check_sealed(control: Control) -> None:
    for path in control.state_dir.rglob("*"):
        if path.is_file():
            assert b"not-a-real" not in path.read_bytes(), path
