"""Other proxies for Anthropic's API, to compare with: those that are installed. See bench/README.md."""

from __future__ import annotations

import json
from pathlib import Path

from ccr_bench.processes import Processes, free_port
from ccr_bench.targets import Target, Upstream, wait_until_up
from ccr_bench.workload import ANSWERS, UPSTREAM_KEY, mock_model


def start_peers(processes: Processes, upstream: Upstream, cpus: set[int] | None, folder: Path) -> list[Target]:
    """Those found in `folder`: `litellm/venv` (pip) and `portkey/node_modules` (npm). See bench/README.md."""
    found = []
    litellm = folder / "litellm/venv/bin/litellm"
    portkey = folder / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    if litellm.exists():
        port, config = free_port(), processes.folder / "litellm.yaml"
        config.write_text(json.dumps(_litellm_config(upstream)))
        env = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "AIOHTTP_CONNECTOR_LIMIT": "8000",
            "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "8000",
        }
        where = ["--host", "127.0.0.1", "--port", str(port)]
        process = processes.start("litellm", [str(litellm), "--config", str(config), *where], cpus, env)
        headers = {"x-api-key": "sk-bench", "accept-encoding": "identity"}  # it would compress
        found.append(Target("litellm", port, port, {"worker": process.pid}, headers, path="/v1/messages", is_peer=True))
        wait_until_up(found[-1], process.poll)
    if portkey.exists():
        port = free_port()
        process = processes.start("portkey", ["node", str(portkey), "--headless", f"--port={port}"], cpus)
        headers = {
            "x-portkey-provider": "anthropic",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream.port}/v1",
            "x-api-key": UPSTREAM_KEY,
            "accept-encoding": "identity",
        }
        found.append(Target("portkey", port, port, {"worker": process.pid}, headers, path="/v1/messages", is_peer=True))
        wait_until_up(found[-1], process.poll)
    return found


def _litellm_config(upstream: Upstream) -> dict[str, object]:
    def model(name: str) -> dict[str, object]:
        parameters = {
            "model": f"anthropic/{name}",
            "api_base": f"http://127.0.0.1:{upstream.port}",
            "api_key": UPSTREAM_KEY,
        }
        prices = {
            "input_cost_per_token": 3e-6,
            "output_cost_per_token": 15e-6,
            "max_input_tokens": 200_000,
            "mode": "chat",
        }
        return {"model_name": name, "litellm_params": parameters, "model_info": prices}

    return {
        "model_list": [model(mock_model(answer)) for answer in ANSWERS],
        "litellm_settings": {"request_timeout": 600, "telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": "sk-bench", "disable_spend_logs": True},
    }
