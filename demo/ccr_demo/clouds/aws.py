"""AWS's part: who may call, by a signature that botocore recomputes over what was received or by a bearer key, and its errors. Pure.

Needs the dependency `botocore` as soon as a signed request comes.
"""

import datetime as dt
import hashlib
import re
from urllib.parse import urlsplit

from ccr_demo.clouds.face import Refused, bearer_of, is_good, refused
from ccr_demo.request import Request
from ccr_demo.settings import Settings

MAX_SKEW_S = 300.0
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/, ]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;_-]+), ?Signature=([0-9a-f]{64})"
)


def aws_error(status: int, name: str, message: str) -> Refused:
    """An error of AWS itself."""
    return refused(status, {"message": message}, ("x-amzn-errortype", f"{name}:http://internal.amazon.com/"))


def caller_of(request: Request, settings: Settings, service: str, now_s: float) -> str:
    """The key that opens the demo, for whoever signed or holds a bearer key. Raises Refused."""
    if token := bearer_of(request) or request.header("x-api-key"):
        if token in settings.expired_tokens:
            raise aws_error(403, "ExpiredTokenException", "The security token included in the request is expired")
        if not is_good(token, settings):
            raise aws_error(
                403, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid."
            )
        return token
    value = request.header("authorization")
    if value is None:
        raise aws_error(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    match = _AUTHORIZATION.fullmatch(value)
    if match is None:
        raise aws_error(403, "IncompleteSignatureException", "Authorization header is not understood")
    access_key, _day, region, signed_service, _names, _signature = match.groups()
    secret = settings.cloud_keys.get(access_key)
    if secret is None:
        raise aws_error(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    if (request.header("x-amz-security-token") or "") in settings.expired_tokens:
        raise aws_error(403, "ExpiredTokenException", "The security token included in the request is expired")
    problem = signature_problem(request, access_key, secret, now_s)
    if not problem and (region, signed_service) != (settings.cloud_region, service):
        problem = f"Credential should be scoped to a valid region and correct service: '{service}'."
    if problem:
        raise aws_error(403, "InvalidSignatureException", problem)
    return settings.good_keys[0] if settings.good_keys else access_key


def signature_problem(request: Request, access_key: str, secret: str, now_s: float | None) -> str:
    """What is wrong with a signed request; empty if nothing is. Without a time its age does not matter.

    The signature is recomputed by botocore from the method, the target and the headers as they arrived.
    """
    from botocore.auth import SigV4Auth  # noqa: PLC0415  # slow to import, and needed by one face only
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415
    from botocore.credentials import Credentials  # noqa: PLC0415

    match = _AUTHORIZATION.fullmatch(request.header("authorization") or "")
    if match is None:
        return "there is no signature"
    _key, day, region, service, names, signature = match.groups()
    stamp = request.header("x-amz-date") or ""
    if not re.fullmatch(r"\d{8}T\d{6}Z", stamp) or stamp[:8] != day:
        return "x-amz-date does not fit the credential's day"
    signed_at = dt.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC).timestamp()
    if now_s is not None and abs(signed_at - now_s) > MAX_SKEW_S:
        return f"Signature expired: {stamp} is not near the current time"
    needed = {"host", "x-amz-date", *(["x-amz-security-token"] if request.header("x-amz-security-token") else [])}
    if missing := needed - set(names.split(";")):
        return f"not signed: {', '.join(sorted(missing))}"
    told = request.header("x-amz-content-sha256")
    if told is not None and told != hashlib.sha256(request.body).hexdigest():
        return "x-amz-content-sha256 does not fit the body"
    headers = {name: request.header(name) for name in names.split(";")}
    host = urlsplit(request.base_url)
    again = AWSRequest(
        method=request.method, url=f"{host.scheme}://{host.netloc}{request.target}", headers=headers, data=request.body
    )
    again.context["timestamp"] = stamp
    token = request.header("x-amz-security-token")
    signer = SigV4Auth(Credentials(access_key, secret, token), service, region)
    expected = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    return (
        ""
        if expected == signature
        else "The request signature we calculated does not match the signature you provided."
    )
