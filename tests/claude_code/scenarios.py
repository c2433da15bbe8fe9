"""What Claude Code is put through: everything of a day's work that a relay could spoil.

The provider's steps say what happens; texts and counts say what must come of it, with or without a relay.
Counts of requests were measured against the provider directly.
"""

from __future__ import annotations

from claude_code.harness import Scenario

# The first command writes, so that Claude Code runs both in order and the results cannot overtake each other.
BASH_WRITE = {"name": "Bash", "input": {"command": "tee copy.txt < two.txt", "description": "Copy a file"}}
BASH_READ = {"name": "Bash", "input": {"command": "cat one.txt", "description": "Print the first file"}}
READ_TWO = {"name": "Read", "input": {"file_path": "two.txt"}}

PLAIN = Scenario(
    name="plain text",
    prompt="Say hello.",
    steps=[{"text": "Hello from the script.", "ping_every": 2}],
    text="Hello from the script.",
    requests=1,
)
PARALLEL_TOOLS = Scenario(
    name="parallel tool calls",
    prompt="Look at the files.",
    steps=[{"text": "Two at once.", "tools": [BASH_WRITE, BASH_READ]}, {"tools": [READ_TWO]}, {"text": "Seen both."}],
    text="Seen both.",
    requests=3,
    tools=("Bash", "Bash", "Read"),
)
THINKING = Scenario(
    name="thinking, echoed in the next turn",
    prompt="Think first.",
    steps=[
        {"thinking": "Which file? The first.", "redacted": True, "text": "I look.", "tools": [BASH_READ]},
        {"thinking": "Now I know.", "text": "It says: the first file."},
    ],
    text="It says: the first file.",
    requests=2,
    tools=("Bash",),
)
OVERLOADED = Scenario(
    name="overloaded once",
    prompt="Try.",
    steps=[{"status": 529}, {"text": "Through."}],
    text="Through.",
    requests=2,
)
RATE_LIMITED = Scenario(
    name="rate limited with retry-after",
    prompt="Try.",
    steps=[{"status": 429, "retry_after_s": 1}, {"text": "After a second."}],
    text="After a second.",
    requests=2,
)
OVERLOADED_FOR_LONG = Scenario(
    name="overloaded three times, then Opus gives up",
    prompt="Try.",
    steps=[{"status": 529, "times": 0}],
    text="API Error: Repeated 529 Overloaded errors. The API is at capacity — this is usually temporary. Try again in a "
    "moment. If it persists, check your inference gateway (<varies>).",
    requests=3,
    exit_code=1,
)
FALLBACK = Scenario(
    name="overloaded three times, then another model",
    prompt="Try.",
    steps=[{"status": 529, "when": {"model": "claude-opus-*"}, "times": 0}, {"text": "Sonnet was free."}],
    text="Sonnet was free.",
    requests=4,
    arguments=("--model", "opus", "--fallback-model", "sonnet"),
)
WEB_PAGE = Scenario(
    name="a web page instead of an answer, once",
    prompt="Try.",
    steps=[{"status": 502, "html": True}, {"text": "No page this time."}],
    text="No page this time.",
    requests=2,
)
TOO_LONG = Scenario(
    name="prompt too long",
    prompt="Try.",
    steps=[{"status": 400, "error": "prompt is too long: 1000001 tokens > 1000000 maximum", "times": 0}],
    text="Prompt is too long · the request is ~1000001 tokens (limit 1000000) but this conversation is only ~* "
    "tokens — the rest is system prompt, tool definitions, and attachment content. A single-exchange conversation "
    "cannot be compacted; reduce attached files/tools or start with less context.",
    requests=1,
    exit_code=1,
)
NO_RETRY = Scenario(
    name="the provider forbids retries",
    prompt="Try.",
    steps=[{"status": 500, "should_retry": False, "times": 0}],
    text="API Error: 500 Internal server error. This is a server-side issue, usually temporary — try again in a moment. "
    "If it persists, check your inference gateway (<varies>).",
    requests=1,
    exit_code=1,
)
ERROR_EVENT = Scenario(
    name="error event in the stream",
    prompt="Try.",
    steps=[
        {"text": "never seen", "error_event": "overloaded_error", "error_event_after": 2},
        {"text": "In one piece.", "when": {"stream": False}},
        {"text": "Streamed again.", "when": {"stream": True}},
    ],
    text="In one piece.",
    requests=2,
    steps_left=1,
)
CUT = Scenario(
    name="connection cut in the stream",
    prompt="Try.",
    steps=[{"text": "never seen", "cut_after_event": 2, "cut": "reset"}, {"text": "The second time."}],
    text="The second time.",
    requests=2,
    may_repeat_whole=True,
)
ENDLESS = Scenario(
    name="cancelled",
    prompt="Take your time.",
    steps=[{"text": ["one ", "two "], "step": True, "id": "endless"}],
    text=None,
    requests=1,
)
DISCOVERY = Scenario(
    name="model discovery at start",
    prompt="Say hello.",
    steps=[{"text": "Hello."}],
    text="Hello.",
    requests=1,
    environment={"CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1"},
)
SUBAGENT = Scenario(
    name="subagent",
    prompt="Ask someone else.",
    steps=[
        {
            "when": {"body_contains": "Ask someone else.", "call": 1},
            "tools": [
                {
                    "name": "Task",
                    "input": {
                        "description": "Read a file",
                        "prompt": "Read one.txt for me.",
                        "subagent_type": "general-purpose",
                        "run_in_background": False,
                    },
                }
            ],
        },
        {"tools": [BASH_READ]},
        {"text": "The helper says: the first file."},
        {"text": "The helper has answered."},
    ],
    text="The helper has answered.",
    requests=4,
    tools=("Task", "Bash"),
)

ALL = (
    PLAIN,
    PARALLEL_TOOLS,
    THINKING,
    OVERLOADED,
    OVERLOADED_FOR_LONG,
    FALLBACK,
    RATE_LIMITED,
    WEB_PAGE,
    TOO_LONG,
    NO_RETRY,
    ERROR_EVENT,
    CUT,
    DISCOVERY,
    SUBAGENT,
)
EACH_TIME = (PLAIN, PARALLEL_TOOLS, THINKING, OVERLOADED, FALLBACK, ERROR_EVENT, SUBAGENT)
OTHERS = tuple(scenario for scenario in ALL if scenario not in EACH_TIME)
