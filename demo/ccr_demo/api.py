"""The demo provider without its sockets: a request goes in, a performance comes out.

Holds the state of one provider (script, prompt cache, limits, batches, files) and does no input or output; the
time is an argument. Order of the checks is the API's: size, credentials, script, body, limits.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ccr_demo.batches import Batches
from ccr_demo.catalogue import Catalogue, Model, page
from ccr_demo.compose import Message, Setting, compose, friendly_text
from ccr_demo.directives import last_user_text, read_directives
from ccr_demo.errors import ApiError
from ccr_demo.files import Files
from ccr_demo.ids import IdMint, base58, named_id, organization_id
from ccr_demo.limits import LimitBook, Limits
from ccr_demo.performance import (
    Headers,
    Performance,
    merged,
    of_body,
    of_chunks,
    of_error,
    of_events,
    of_message,
    of_raw_response,
    of_scripted_body,
)
from ccr_demo.prompt_cache import InputUsage, PromptCache, count_input_tokens, read_prompt
from ccr_demo.request import Request, facts_of, json_or_nothing, read_json
from ccr_demo.script import Answer, Script, Step
from ccr_demo.settings import Settings
from ccr_demo.signatures import Binding, check_thinking, prefix_of
from ccr_demo.validation import check_common, check_conversation, check_message_request, readable_part

API_VERSIONS = ("2023-01-01", "2023-06-01", "2026-10-21")
MAX_BODY_BYTES: Mapping[str, int] = {"/v1/files": 500 * 1024 * 1024, "/v1/messages/batches": 256 * 1024 * 1024}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as limits, caches and signatures are concerned."""

    organization: str

    @property
    def organization_id(self) -> str:
        """The UUID in `anthropic-organization-id`."""
        return organization_id(self.organization)


class Api:
    """One scripted Anthropic-API provider."""

    def __init__(self, settings: Settings, script: Script) -> None:
        self.start_again(settings, script)

    def start_again(self, settings: Settings, script: Script) -> None:
        """Forgets everything."""
        self.script = script
        self._mint = IdMint(settings.seed)
        self._cache = PromptCache()
        self._texts_seen: dict[bytes, int] = {}
        self._files = Files()
        self._batches = Batches(self._batch_answer)
        self._limit_book = LimitBook(Limits(), {})
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Takes other settings; state stays."""
        self.settings = settings
        self._catalogue = Catalogue.of_ids(settings.models, settings.strict_models)
        limits = Limits(
            settings.requests_per_minute, settings.input_tokens_per_minute, settings.output_tokens_per_minute
        )
        if limits != self._limit_book.limits:
            self._limit_book = LimitBook(limits, {})

    def max_body_bytes(self, path: str) -> int:
        """Bodies above this are answered with 413 and need not be read to the end."""
        return MAX_BODY_BYTES.get(path, self.settings.max_body_bytes)

    def too_large(self) -> Performance:
        """The 413 for a body above the limit."""
        request_id = self._mint.new("request")
        answer = of_error(ApiError(413), request_id, self._headers(request_id, None))
        return replace(answer, closes=True)

    def answer(self, request: Request, now_s: float) -> tuple[Performance, str]:
        """What to send for a request at `now_s` (epoch seconds), and the name of the scripted step if one did it."""
        request_id = self._mint.new("request")
        caller: Caller | None = None
        step: Step | None = None
        try:
            if request.path in ("/", "/api/hello", "/health") and request.method in ("HEAD", "GET"):
                return of_body(200, b"", self._headers(request_id, None)), ""
            facts = facts_of(request)
            self.script = self.script.counted(request.path)
            index = self.script.find(facts)
            step = self.script.steps[index] if index is not None else None
            if step is not None and not step.is_message and index is not None:
                self.script = self.script.took(index)
                return self._scripted(step, request, request_id), step.id
            caller = self._admit(request)
            self._check_head(request)
            headers = self._headers(request_id, caller)
            performance = self._routed(request, step, caller, headers, now_s)
            if index is not None:
                self.script = self.script.took(index)
        except ApiError as error:  # the step, if there was one, stays for a better request
            return of_error(error, request_id, self._headers(request_id, caller)), ""
        return performance, step.id if step else ""

    def _admit(self, request: Request) -> Caller:
        """The caller behind the key. Raises ApiError (401)."""
        key = request.header("x-api-key")
        bearer = request.header("authorization")
        if key is None and bearer is not None and bearer[:7].lower() == "bearer ":
            key = bearer[7:].strip()
        if not key:
            raise ApiError(401, "x-api-key header is required")
        if key in self.settings.bad_keys or (self.settings.good_keys and key not in self.settings.good_keys):
            raise ApiError(401, "invalid x-api-key" if request.header("x-api-key") else "Invalid bearer token")
        return Caller(self.settings.key_organizations.get(key, self.settings.organization))

    def _check_head(self, request: Request) -> None:
        """Raises ApiError (400) for a version or beta value that does not exist."""
        if not self.settings.validate:
            return
        _check_version(request.header("anthropic-version"))
        known = self.settings.known_betas
        for beta in filter(None, (each.strip() for each in (request.header("anthropic-beta") or "").split(","))):
            if known and beta not in known:
                raise ApiError(
                    400,
                    f"Unexpected value(s) `{beta}` for the `anthropic-beta` header. Please consult our documentation "
                    "at docs.anthropic.com or try again without the header.",
                )

    def _headers(self, request_id: str, caller: Caller | None) -> Headers:
        """The headers of every answer; without a caller there is no organisation to name."""
        headers: Headers = (
            ("request-id", request_id),
            ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
            ("server", "cloudflare"),
            ("x-envoy-upstream-service-time", "412"),
            ("cf-cache-status", "DYNAMIC"),
            ("x-robots-tag", "none"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cf-ray", f"{base58(request_id, 16).lower()}-FRA"),
        )
        if caller is not None:
            workspace = named_id("workspace", self.settings.workspace)
            headers += (("anthropic-organization-id", caller.organization_id), ("anthropic-workspace-id", workspace))
        return headers

    def _scripted(self, step: Step, request: Request, request_id: str) -> Performance:
        """A step that is no message: played whatever the request says, credentials included."""
        caller = None if step.status == 401 else Caller(self.settings.organization)
        headers = self._headers(request_id, caller)
        return self._unusual(step, json_or_nothing(request), request_id, headers)

    def _unusual(self, answer: Answer, body: Json, request_id: str, headers: Headers) -> Performance:
        if answer.raw_response is not None:
            return of_raw_response(answer.raw_response, answer, self.settings.pace_ms)
        if answer.raw_chunks is not None:
            return of_chunks(answer.raw_chunks, answer, headers, self.settings.pace_ms)
        if answer.events is not None:
            return of_events([each.encode() for each in answer.events], answer, headers, self.settings.pace_ms)
        if answer.cut_after_event == -1 and body.get("stream") is True:
            return of_events([], answer, headers, 0)
        return of_scripted_body(answer, request_id, headers)

    def _routed(
        self, request: Request, step: Step | None, caller: Caller, headers: Headers, now_s: float
    ) -> Performance:
        now = datetime.fromtimestamp(now_s, UTC)
        method, path = request.method, request.path
        match [method, *path.strip("/").split("/")]:
            case ["POST", "v1", "messages"]:
                return self._messages(request, step, caller, headers, now_s)
            case ["POST", "v1", "messages", "count_tokens"]:
                return self._json(headers, self._count_tokens(request))
            case [_, "v1", "messages", "batches", *rest]:
                return self._batch_call(method, rest, request, headers, now)
            case ["GET", "v1", "models"]:
                return self._json(headers, page([each.as_json() for each in self._catalogue.models], request.query))
            case ["GET", "v1", "models", *name]:
                return self._json(headers, self._catalogue.get("/".join(name)).as_json())
            case [_, "v1", "files", *rest]:
                return self._file_call(method, rest, request, headers, now)
            case [_, "v1", "messages" | "models"] | [_, "v1", "messages", "count_tokens"]:
                raise ApiError(405, "Method Not Allowed")
        raise ApiError(404, f"Not found: {path}")

    def _json(self, headers: Headers, value: object) -> Performance:
        return of_body(200, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(), headers)

    def _messages(
        self, request: Request, step: Step | None, caller: Caller, headers: Headers, now_s: float
    ) -> Performance:
        body = read_json(request) if self.settings.validate else readable_part(json_or_nothing(request))
        model = self._check(body, request, caller)
        answer: Answer | None = step or self._directed(body)
        if answer is not None and not answer.is_message:
            return self._unusual(answer, body, dict(headers)["request-id"], headers)
        usage, cache = self._look_up(body, model, now_s)
        buckets = self._limit_book.of(caller.organization, model.line, now_s)
        if self.settings.enforce_limits:
            buckets.check()
        message = self._compose(answer or Answer(), body, usage, caller, model)
        self._cache = self._cache.merged(cache)
        buckets = buckets.after(usage.total_tokens - usage.read_tokens, message.output_tokens)
        self._limit_book = self._limit_book.with_buckets(caller.organization, model.line, buckets)
        headers = merged(buckets.headers(), headers)
        if body.get("stream") is True:
            return of_events(message.events(), answer or Answer(), headers, self.settings.pace_ms)
        return of_message(message.as_json(), answer or Answer(), headers)

    def _check(self, body: Json, request: Request, caller: Caller) -> Model:
        """The model that answers. Raises ApiError if the body is not valid."""
        if not self.settings.validate:
            return self._catalogue.for_request(str(body.get("model", "unknown")))
        model = self._catalogue.for_request(check_common(body)["model"])
        version = request.header("anthropic-version") or ""
        check_message_request(body, version, model, self.settings.accepts_system_turns)
        check_thinking(body, self._binding(caller))
        return model

    def _binding(self, caller: Caller) -> Binding:
        return Binding(caller.organization, self.settings.account_bound, self.settings.prefix_bound)

    def _directed(self, body: Json) -> Answer | None:
        text = last_user_text(body)
        if "[[" not in text:
            return None
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        times_seen = self._texts_seen.get(digest, 0)
        self._texts_seen[digest] = times_seen + 1
        return read_directives(body, times_seen)

    def _look_up(self, body: Json, model: Model, now_s: float) -> tuple[InputUsage, PromptCache]:
        prompt = read_prompt(body, model.min_cacheable_tokens)
        return self._cache.look_up(self.settings.workspace, prompt, now_s)

    def _compose(self, answer: Answer, body: Json, usage: InputUsage, caller: Caller, model: Model) -> Message:
        asked = body.get("thinking")
        display = asked.get("display") if isinstance(asked, dict) else "summarized"
        omits = display == "omitted" or (display is None and model.omits_thinking_by_default)
        setting = Setting(self._mint.new, caller.organization, omits, self._prefix_maker(body))
        if answer.text is None and not (answer.tools or answer.blocks):
            words = friendly_text(body, usage)
            answer = _with_text(answer, words)
        return compose(answer, body, usage, setting)

    def _prefix_maker(self, body: Json) -> Callable[[Any], bytes]:
        return lambda blocks_before: prefix_of(body, body.get("messages") or [], blocks_before)

    def _count_tokens(self, request: Request) -> Json:
        body = read_json(request)
        fields = check_common(body)
        if self.settings.validate:
            model = self._catalogue.for_request(fields["model"])
            check_conversation(fields, model, self.settings.accepts_system_turns)
        return {"input_tokens": count_input_tokens(body)}

    def _batch_answer(self, params: Json) -> Json:
        model = self._catalogue.for_request(check_common(params)["model"])
        check_message_request(params, "", model, self.settings.accepts_system_turns)
        usage = InputUsage(count_input_tokens(params))
        answer = read_directives(params, 0) or Answer()
        message = self._compose(answer, params, usage, Caller(self.settings.organization), model)
        return message.as_json()

    def _batch_call(
        self, method: str, rest: list[str], request: Request, headers: Headers, now: datetime
    ) -> Performance:
        batches, base_url = self._batches, request.base_url
        match [method, *rest]:
            case ["POST"]:
                batch = batches.create(read_json(request), self._mint.new("batch"), now)
                return self._json(headers, batch.as_json(base_url))
            case ["GET"]:
                return self._json(headers, batches.page(request.query, base_url))
            case ["GET", batch_id]:
                return self._json(headers, batches.look_at(batch_id, now).as_json(base_url))
            case ["POST", batch_id, "cancel"]:
                return self._json(headers, batches.cancel(batch_id, now).as_json(base_url))
            case ["DELETE", batch_id]:
                return self._json(headers, batches.delete(batch_id))
            case ["GET", batch_id, "results"]:
                return of_body(200, batches.results(batch_id, now), headers, "application/x-jsonl")
        raise ApiError(404, f"Not found: {request.path}")

    def _file_call(
        self, method: str, rest: list[str], request: Request, headers: Headers, now: datetime
    ) -> Performance:
        files = self._files
        match [method, *rest]:
            case ["POST"]:
                content_type = request.header("content-type") or ""
                created_at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
                return self._json(headers, files.upload(content_type, request.body, self._mint.new("file"), created_at))
            case ["GET"]:
                return self._json(headers, files.page(request.query))
            case ["GET", file_id]:
                return self._json(headers, files.get(file_id).metadata)
            case ["GET", file_id, "content"]:
                file = files.get(file_id)
                return of_body(200, file.content, headers, str(file.metadata["mime_type"]))
            case ["DELETE", file_id]:
                return self._json(headers, files.delete(file_id))
        raise ApiError(404, f"Not found: {request.path}")


def _with_text(answer: Answer, text: str) -> Answer:
    fields = {name: getattr(answer, name) for name in Answer.__struct_fields__}
    return Answer(**{**fields, "text": text})


def _check_version(version: str | None) -> None:
    if version is None:
        raise ApiError(400, "anthropic-version: header is required")
    if version not in API_VERSIONS:
        raise ApiError(400, f'anthropic-version: "{version}" is not a valid version')
