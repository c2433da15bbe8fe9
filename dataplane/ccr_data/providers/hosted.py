"""Adapter for clouds that speak the Anthropic Messages API itself: the model in the body, server-sent events, Anthropic's headers.

Microsoft Foundry (`model` is the deployment's name), Bedrock's native endpoints (bedrock-runtime and mantle), the Claude Platform on
AWS, and the Claude API on Google Cloud. What differs from Anthropic is the credential (two headers, a bearer token or a signature),
the betas that are taken, and:

- Bedrock and Foundry know no `cache_control.scope`;
- mantle reads `user_profile_id` from the body instead of from the header (anthropic 2.11.0, lib/bedrock/_mantle.py).
"""

from __future__ import annotations

import msgspec

from ccr_data.core.peek import peek
from ccr_data.core.snapshot import Provider, ProviderType, Target
from ccr_data.providers import anthropic_shaped
from ccr_data.providers.adapter import ClientRequest, UpstreamRequest
from ccr_data.providers.cloud_lines import header_of, without_aws_lines
from ccr_data.providers.gated import fields_of, leave_out, without_cache_scope

_USER_PROFILE = b"anthropic-user-profile-id"
_NO_SCOPE = frozenset((ProviderType.BEDROCK, ProviderType.AZURE))


def prepare(request: ClientRequest, target: Target) -> UpstreamRequest:
    """The request to send to the target. Raises BadRequest as the Anthropic-shaped adapter does."""
    lines = without_aws_lines(request.head.lines)
    provider = target.provider
    body = request.body
    if request.peek is not None:
        body = fitted(body, provider)
        if provider.type is ProviderType.BEDROCK:
            profile = header_of(lines, _USER_PROFILE)
            if profile:
                lines = [line for line in lines if not line.lower().startswith(_USER_PROFILE)]
                body = b'{"user_profile_id":%b,' % msgspec.json.encode(profile.decode("latin-1")) + body.lstrip()[1:]
    if lines is not request.head.lines:
        request = ClientRequest(request.head.copied(lines=lines), request.body, request.peek, request.own_token)
    if body is not request.body:
        request = ClientRequest(request.head, body, peek(body), request.own_token)
    return anthropic_shaped.prepare(request, target)


def fitted(body: bytes, provider: Provider) -> bytes:
    """The body without what the provider does not take; the same one if it takes all of it."""
    if provider.type in _NO_SCOPE:
        body = without_cache_scope(body)
    if provider.allowed_betas is not None or provider.dropped_betas:
        fields = fields_of(body)
        if leave_out(fields, provider):
            return msgspec.json.encode(fields)
    return body
