"""Where to listen, and which base URLs may be called.

Pure: names are not resolved, so only literal addresses can be judged. Metadata services of clouds hand out credentials
to whoever asks from the machine, therefore they are never a provider. Sources: RFC 3986, RFC 6890, the clouds' pages on
instance metadata.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
_NUMERIC_HOST = re.compile(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+))*")
_METADATA_HOSTS = frozenset(
    {
        "169.254.169.254",  # AWS, GCP, Azure, most others
        "169.254.170.2",  # AWS ECS task credentials
        "169.254.170.23",  # AWS EKS pod identity
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",  # GCP
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
    }
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str  # without brackets
    port: int  # 0: any free one

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        address = _ip(self.host)
        return address.is_loopback if address else self.host.lower() == "localhost"


def parse_address(text: object) -> Address:
    """`127.0.0.1:8787`, `localhost:8787`, `[::1]:8787`. Raises ValueError, saying how to write it."""
    if isinstance(text, Address):
        return text
    host, colon, port = str(text).rpartition(":")
    if not isinstance(text, str) or not colon or not re.fullmatch(r"\d{1,5}", port, re.ASCII):
        raise ValueError("not an address to listen on: write host:port, such as 127.0.0.1:8787 or [::1]:8787")
    if int(port) > 65535:
        raise ValueError("the port must be between 0 and 65535")
    if host.startswith("[") and host.endswith("]") and (address := _ip(host[1:-1])) and address.version == 6:
        return Address(host[1:-1], int(port))
    if not host:
        raise ValueError("the host is missing: 127.0.0.1 for this machine only, 0.0.0.0 for every network")
    if not _HOST_NAME.fullmatch(host) or (_NUMERIC_HOST.fullmatch(host) and _ip(host) is None):
        raise ValueError("the host must be a name or an IP address; IPv6 goes in brackets: [::1]:8787")
    return Address(host, int(port))


def _loopback_only(address: Address) -> Address:
    if not address.is_loopback:
        raise ValueError("the page is served on loopback only: use 127.0.0.1, and a tunnel (ssh -L) from elsewhere")
    return address


def parse_base_url(text: object) -> str:
    """A base URL in its plain form: lower-case scheme and host, no trailing slash.

    Raises ValueError, without the URL in it: it may hold a password.
    """
    if not isinstance(text, str):
        raise ValueError("must be text: a URL such as https://api.anthropic.com")  # noqa: TRY004 - pydantic's protocol
    if not re.fullmatch(r"[\x21-\x7e]+", text):  # urlsplit would silently drop line breaks
        raise ValueError("holds a blank, control or non-ASCII character")
    parts = _split(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with https:// (or http://) and a host")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password: use `keys`")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query (`?`) or fragment (`#`)")
    path = parts.path.rstrip("/")
    for suffix in ("/v1/messages", "/v1"):
        if path.endswith(suffix):
            raise ValueError(f"ends in {suffix}, which the relay adds by itself: leave it off")
    if "//" in path or re.search(r"/\.{1,2}(/|$)|[\\%]", path):
        raise ValueError("the path must be plain: no `//`, `..`, `%` or backslash")
    host = _checked_host(parts.hostname)
    port = _port(parts)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{path}"


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise ValueError("is not a URL") from None


def _port(parts: SplitResult) -> str:
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port must be a number between 1 and 65535") from None
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("the port must be a number between 1 and 65535")
    return "" if port in (None, {"http": 80, "https": 443}[parts.scheme]) else f":{port}"


def _checked_host(name: str) -> str:
    host = name.rstrip(".").lower()
    address = None if "%" in host else _ip(host)
    if address is None and (_NUMERIC_HOST.fullmatch(host) or not _HOST_NAME.fullmatch(host)):
        raise ValueError("the host must be a name or a complete IP address")
    if host in _METADATA_HOSTS or (address and str(address) in _METADATA_HOSTS):
        raise ValueError("this is a cloud's metadata service, which is never a provider")
    return str(address) if address else host


def is_private(base_url: str) -> bool:
    """Whether a base URL names this machine or a private network, as far as a literal address can tell."""
    host = urlsplit(base_url).hostname or ""
    address = _ip(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return not address.is_global or address.is_multicast


def origin(url: str) -> str:
    """Scheme, host and port of a URL in its plain form."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _parse_origin(text: object) -> str:
    url = parse_base_url(text)
    if origin(url) != url or not url.startswith("https://"):
        raise ValueError("must be an https origin without a path, such as https://api.anthropic.com")
    return url


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a literal host stands for; ::ffff:a.b.c.d is the IPv4 address it reaches."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


_ADDRESS_SCHEMA = WithJsonSchema({"type": "string", "pattern": r"^.+:\d{1,5}$"})
_URL_SCHEMA = WithJsonSchema({"type": "string", "pattern": "^https?://"})

Listen = Annotated[Address, PlainValidator(parse_address), PlainSerializer(str, return_type=str), _ADDRESS_SCHEMA]
LoopbackListen = Annotated[Listen, AfterValidator(_loopback_only)]
BaseUrl = Annotated[str, PlainValidator(parse_base_url), _URL_SCHEMA]
Origin = Annotated[str, PlainValidator(_parse_origin), _URL_SCHEMA]
