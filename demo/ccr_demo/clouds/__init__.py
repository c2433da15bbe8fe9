"""The demo provider as a cloud: the same scripted answers, asked for and wrapped as a cloud does it.

Pure. `Settings.cloud` names the face. A face turns a request of its cloud into one of the Messages API, once the cloud's own checks
(credentials, path, body) have passed, and what was answered into the cloud's form. Scripts and directives see the Messages API.
"""

from collections.abc import Mapping

from ccr_demo.api import Api
from ccr_demo.clouds.bedrock import Bedrock
from ccr_demo.clouds.face import Face, Refused
from ccr_demo.clouds.foundry import Foundry
from ccr_demo.clouds.native import ClaudeAws, ClaudeGoogle, Native
from ccr_demo.clouds.vertex import Vertex
from ccr_demo.performance import Performance
from ccr_demo.request import Request

FACES: Mapping[str, Face] = {
    "bedrock": Bedrock(),
    "mantle": Native("bedrock-mantle"),
    "native": Native("bedrock"),
    "vertex": Vertex(),
    "foundry": Foundry(),
    "claude-aws": ClaudeAws(),
    "claude-gcp": ClaudeGoogle(),
}


def answered(api: Api, request: Request, now_s: float) -> tuple[Performance, str]:
    """What to send for a request at `now_s` (epoch seconds), and the name of the scripted step if one did it."""
    face = FACES.get(api.settings.cloud)
    if face is None:
        return api.answer(request, now_s)
    try:
        asked = face.read(request, api.settings, now_s)
    except Refused as refusal:
        return refusal.performance, ""
    performance, step = api.answer(asked, now_s)
    return face.told(performance, asked, api.settings), step
