"""What went wrong at a Chat Completions server, as a :class:`ProviderError` that says what to do."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...kernel.errors import ProviderError

#: Words by which servers say that a prompt is too long; most have no code for it.
_OVERFLOW = re.compile(
    r"context[ _-]?(length|window|size)|maximum context|prompt is too long|too many (input )?tokens"
    r"|exceeds? the (model's )?(maximum|available) (number of tokens|context)",
    re.IGNORECASE,
)
#: Characters of a provider's words that an error repeats; a gateway may answer with a whole page.
_MOST_SAID = 1000


@dataclass(frozen=True, slots=True)
class Provider:
    """Whom an error is about: prefix, model, address, and the key that no message may show."""

    prefix: str
    model: str
    base_url: str
    key: Callable[[], str | None]

    @property
    def key_hint(self) -> str:
        """How to give it a key."""
        variable = " or set OPENAI_API_KEY" if self.prefix == "openai" else ""
        return f"Run `kernloom keys set {self.prefix}`{variable}."

    def missing_key(self) -> ProviderError:
        """No key at all."""
        return ProviderError(
            f"There is no key for {self.prefix!r}.", code="provider.auth", hint=self.key_hint
        )

    def unreachable(self, what: str) -> ProviderError:
        """No connection, or no answer in time."""
        return ProviderError(
            f"{what} at {self.base_url}.",
            code="provider.unreachable",
            hint="Check the address, the network and that the server is running.",
            base_url=self.base_url,
        )

    def refused(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> ProviderError:
        """An HTTP status of 400 or more, or an error object in the place of an answer."""
        said, code = _read(body)
        said = self._quiet(said)[:_MOST_SAID]
        slug, hint = self._judge(status, said, code)
        return ProviderError(
            f"{self.prefix} refused the request ({status}): {said or 'no reason given'}"
            f"{'' if said.endswith('.') else '.'}",
            code=slug,
            hint=hint,
            status=status,
            retry_after=_retry_after(headers or {}),
            model=self.model,
        )

    def _judge(self, status: int, said: str, code: str) -> tuple[str, str | None]:
        """The slug and what to do, most specific first."""
        if status == 401:
            return "provider.auth", self.key_hint
        if status == 403:
            return "provider.denied", "Check what the key may do and whether the model is open to it."
        if status == 404:
            return (
                "provider.not_found",
                f"Check the model's name {self.model!r} and the URL {self.base_url}.",
            )
        if code == "insufficient_quota":
            return "provider.quota", "The account has no credit left; waiting does not help."
        if status == 429:
            return "provider.rate_limited", "Wait and ask again, or ask less at once."
        if status in (400, 413, 422, 500) and (code == "context_length_exceeded" or _OVERFLOW.search(said)):
            return (
                "provider.context_overflow",
                "Send less history or fewer passages, or use a larger model.",
            )
        if code in ("content_filter", "content_policy_violation"):
            return "provider.content_filter", None
        if status in (408, 409) or status >= 500:
            return "provider.server_error", "It is on the provider's side; ask again."
        return "provider.bad_request", None

    def _quiet(self, said: str) -> str:
        key = self.key()
        return said.replace(key, "…") if key and len(key) > 4 else said


def status_of(error: object) -> int:
    """The status an error object in a 200 answer stands for; 500 where it does not say."""
    if isinstance(error, dict):
        for key in ("code", "status"):
            value = error.get(key)
            if isinstance(value, str) and value.isdigit():
                value = int(value)
            if isinstance(value, int) and 400 <= value < 600:
                return value
        if error.get("code") == "context_length_exceeded":
            return 400
    return 500


def _read(body: object) -> tuple[str, str]:
    """What the provider said, and its code."""
    if isinstance(body, dict):
        error: Any = body.get("error", body)
        if isinstance(error, dict):
            said = error.get("message") or error.get("detail") or ""
            return str(said), str(error.get("code") or error.get("type") or "")
        return str(error), ""
    return str(body or ""), ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date, RFC 9110 §10.2.3)."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / divisor
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, date.timestamp() - time.time())
