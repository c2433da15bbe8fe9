"""The demo's own endpoints, `/__demo/…`, for tests in other processes; listed in `ccr_demo.__main__`."""

from collections import deque
from typing import Any, Protocol

from aiohttp import web

from ccr_demo.errors import ScriptInvalid
from ccr_demo.records import Record, Stats
from ccr_demo.script import read_script_text, read_steps


class Demo(Protocol):
    """What can be done to a demo provider while it runs."""

    requests: deque[Record]
    stats: Stats

    @property
    def steps_left(self) -> int: ...
    def play(self, *steps: object) -> None: ...
    def configure(self, **changes: Any) -> None: ...
    def forget_requests(self) -> None: ...
    async def step(self, gate: str = "") -> int: ...
    def reset(self) -> None: ...


async def control(demo: Demo, request: web.BaseRequest, name: str) -> web.StreamResponse:
    """The demo's own endpoints; see `ccr_demo.__main__`."""
    try:
        return await _controlled(demo, request, name)
    except ScriptInvalid as error:
        return web.json_response({"error": str(error)}, status=400)
    except TimeoutError:
        return web.json_response({"error": "no stream waits for this step"}, status=408)


async def _controlled(demo: Demo, request: web.BaseRequest, name: str) -> web.StreamResponse:
    match request.method, name:
        case "POST", "script":
            steps = read_steps(read_script_text(await request.text()))
            demo.play(*steps)
            return web.json_response({"steps": len(steps)})
        case "GET", "script":
            return web.json_response({"steps_left": demo.steps_left})
        case "POST", "settings":
            demo.configure(**read_script_text(await request.text()))
            return web.json_response({})
        case "GET", "requests":
            return web.json_response({"requests": [record.as_json() for record in demo.requests]})
        case "DELETE", "requests":
            demo.forget_requests()
            return web.json_response({})
        case "GET", "stats":
            return web.json_response({name: getattr(demo.stats, name) for name in Stats.__slots__})
        case "POST", "step":
            return web.json_response({"events_sent": await demo.step(request.query.get("id", ""))})
        case "POST", "reset":
            demo.reset()
            return web.json_response({})
    return web.json_response({"error": f"no such demo endpoint: {request.method} {name}"}, status=404)
