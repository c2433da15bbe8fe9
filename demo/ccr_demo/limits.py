"""Rate limits of the demo provider: token buckets per organisation and model line, and the headers about them.

Pure; times are epoch seconds of the caller. Limits are per minute and refill continuously; cache reads do not
count as input (docs/providers/anthropic.md). They are always shown and only enforced on request.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ccr_demo.errors import ApiError


@dataclass(frozen=True, slots=True)
class Limits:
    """Allowed per minute."""

    requests: int = 4_000
    input_tokens: int = 2_000_000
    output_tokens: int = 400_000


@dataclass(frozen=True, slots=True)
class Buckets:
    """What is left; below zero when a request turned out bigger than what was left."""

    limits: Limits
    requests: float
    input_tokens: float
    output_tokens: float
    at_s: float

    @classmethod
    def full(cls, limits: Limits, now_s: float) -> "Buckets":
        """Nothing used yet."""
        return cls(limits, limits.requests, limits.input_tokens, limits.output_tokens, now_s)

    def at(self, now_s: float) -> "Buckets":
        """The buckets after refilling until now."""
        minutes = max(0.0, now_s - self.at_s) / 60
        full = self.limits
        return replace(
            self,
            requests=min(full.requests, self.requests + full.requests * minutes),
            input_tokens=min(full.input_tokens, self.input_tokens + full.input_tokens * minutes),
            output_tokens=min(full.output_tokens, self.output_tokens + full.output_tokens * minutes),
            at_s=now_s,
        )

    def after(self, input_tokens: int, output_tokens: int) -> "Buckets":
        """The buckets after one served request; `input_tokens` without cache reads."""
        return replace(
            self,
            requests=self.requests - 1,
            input_tokens=self.input_tokens - input_tokens,
            output_tokens=self.output_tokens - output_tokens,
        )

    def check(self) -> None:
        """Raises ApiError (429) with an honest `retry-after` if one bucket is empty."""
        for name, left, limit in self._rows():
            needed = 1 if name == "requests" else 0
            if left < needed or (name != "requests" and left <= 0):
                wait_s = max(1, math.ceil((max(needed, 1) - left) * 60 / limit))
                raise ApiError(
                    429,
                    f"This request would exceed your organization's rate limit of {limit:,} {name.replace('-', ' ')} "
                    "per minute. Please try again later.",
                    headers=(("retry-after", str(wait_s)), *self.headers()),
                )

    def headers(self) -> tuple[tuple[str, str], ...]:
        """`anthropic-ratelimit-*`; remaining tokens are rounded to thousands, the plain set sums both kinds."""
        rows = [(name, max(0.0, left), limit) for name, left, limit in self._rows()]
        tokens = [row for row in rows if row[0] != "requests"]
        rows.append(("tokens", sum(left for _, left, _ in tokens), sum(limit for _, _, limit in tokens)))
        headers = []
        for name, left, limit in rows:
            shown = int(left) if name == "requests" else round(left, -3)
            full_at = datetime.fromtimestamp(math.ceil(self.at_s + (limit - left) * 60 / limit), UTC)
            prefix = f"anthropic-ratelimit-{name}"
            headers += [
                (f"{prefix}-limit", str(limit)),
                (f"{prefix}-remaining", str(int(shown))),
                (f"{prefix}-reset", full_at.strftime("%Y-%m-%dT%H:%M:%SZ")),
            ]
        return tuple(headers)

    def _rows(self) -> list[tuple[str, float, int]]:
        return [
            ("requests", self.requests, self.limits.requests),
            ("input-tokens", self.input_tokens, self.limits.input_tokens),
            ("output-tokens", self.output_tokens, self.limits.output_tokens),
        ]


@dataclass(frozen=True, slots=True)
class LimitBook:
    """The buckets of all (organisation, model line)."""

    limits: Limits
    buckets: Mapping[tuple[str, str], Buckets]

    def of(self, organization: str, line: str, now_s: float) -> Buckets:
        """The buckets of one organisation and model line, refilled until now."""
        known = self.buckets.get((organization, line))
        return known.at(now_s) if known else Buckets.full(self.limits, now_s)

    def with_buckets(self, organization: str, line: str, buckets: Buckets) -> "LimitBook":
        """The book with these buckets replaced."""
        return LimitBook(self.limits, {**self.buckets, (organization, line): buckets})
