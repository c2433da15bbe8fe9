"""Settings of one demo provider. Pure; they can be changed while it runs (POST /__demo/settings)."""

import msgspec

from ccr_demo.errors import ScriptInvalid


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who the demo pretends to be, and how strict it is."""

    organization: str = "demo"  # a name; its id is a UUID made from it
    workspace: str = "default"  # prompt caches belong to it
    key_organizations: dict[str, str] = msgspec.field(default_factory=dict)  # key -> another organisation's name
    bad_keys: tuple[str, ...] = ("sk-bad",)  # answered with 401
    good_keys: tuple[str, ...] = ()  # if any: every other key is answered with 401
    models: tuple[str, ...] = ()  # listed by /v1/models; empty: the built-in list
    strict_models: bool = False  # 404 for models that are not listed
    known_betas: tuple[str, ...] = ()  # if any: 400 for other values of anthropic-beta
    validate: bool = True  # False: any body gets an answer
    accepts_system_turns: bool = True  # False: like upstreams that only know user and assistant
    account_bound: bool = False  # thinking blocks of other organisations are refused
    prefix_bound: bool = False  # thinking blocks behind a changed prefix are refused
    enforce_limits: bool = False
    requests_per_minute: int = 4_000
    input_tokens_per_minute: int = 2_000_000
    output_tokens_per_minute: int = 400_000
    pace_ms: float = 0.0  # between events
    max_body_bytes: int = 32 * 1024 * 1024  # of messages and count_tokens; 413 above
    record_last: int = 1_000  # requests kept for /__demo/requests
    record_bytes: int = 256 * 1024 * 1024  # and of these, at most so much of bodies
    seed: str = "demo"  # of all identifiers
    cloud: str = ""  # the cloud it plays (`ccr_demo.clouds`); empty: the Claude API
    cloud_region: str = "us-east-1"  # in AWS's signatures
    cloud_keys: dict[str, str] = msgspec.field(default_factory=dict)  # AWS access key id -> secret access key
    expired_tokens: tuple[str, ...] = ()  # bearer or session tokens that a cloud calls expired
    split_bytes: int = 0  # a cloud's frames come in pieces of so many bytes
    corrupt_frame: int = 0  # the n-th frame of a stream is damaged
    truncate_frame: int = 0  # in the middle of the n-th frame a stream ends


def changed(settings: Settings, changes: object) -> Settings:
    """The settings with some replaced. Raises ScriptInvalid."""
    if not isinstance(changes, dict):
        raise ScriptInvalid("settings: expected an object with the settings to change")
    try:
        return msgspec.convert({**msgspec.to_builtins(settings), **changes}, Settings)
    except msgspec.ValidationError as error:
        raise ScriptInvalid(f"settings: {error}") from None
