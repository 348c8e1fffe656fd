"""Three ways to pay, by what the bank can promise. Each is an effect that must happen once."""

from __future__ import annotations

import json
import os
import signal
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from kernloom import Context, function
from kernloom.kernel.functions import Done


class Payments:
    """Functions that send money.

    Args:
        url: where the bank listens.
        dies: the process kills itself right after the money was sent, before anybody could write it down.
    """

    def __init__(self, url: str, *, dies: bool = False) -> None:
        self._url = url
        self._dies = dies

    @function(effects={"spend"}, idempotent=True)
    def pay(self, to: str, amount: int, context: Context) -> str:
        """Pay. The bank knows the key: asked again with it, it pays nothing more."""
        headers = {"Idempotency-Key": context.idempotency_key or ""}
        return self._send("/payments", {"to": to, "amount": amount}, headers)

    @function(effects={"spend"}, reconcile="was_transferred")
    def transfer(self, to: str, amount: int, context: Context) -> str:
        """Transfer. The bank pays each time it is asked, and can be asked what it has paid."""
        order = {"to": to, "amount": amount, "reference": context.idempotency_key}
        return self._send("/transfers", order, {})

    def was_transferred(self, key: str) -> Done | None:
        """Whether the transfer of this key was made, and with what receipt."""
        try:
            with urlopen(f"{self._url}/transfers?reference={quote(key)}", timeout=10) as answer:
                return Done(json.load(answer)["receipt"])
        except HTTPError as exc:
            if exc.code == 404:
                return None
            raise

    @function(effects={"spend"})
    def wire(self, to: str, amount: int) -> str:
        """Wire. The bank pays each time it is asked, and tells a program nothing: a person must look."""
        return self._send("/transfers", {"to": to, "amount": amount}, {})

    def _send(self, path: str, order: dict[str, Any], headers: dict[str, str]) -> str:
        request = Request(self._url + path, json.dumps(order).encode(), headers)
        with urlopen(request, timeout=10) as answer:
            receipt: str = json.load(answer)["receipt"]
        if self._dies:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        return receipt
