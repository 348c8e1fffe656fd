"""The world outside: a payment server on the loopback interface that outlives the workers it kills.

Every request to ``POST /pay`` is an effect, applied as often as it is asked for, unless the request says
that the server should know a key it has seen (what an ``idempotent`` function relies on). So whoever asks
twice is seen to have paid twice. Requests are JSON ``{"key", "what", "pid", "once"}``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

#: Kill the process that pays, when its request has arrived or when its effect has happened.
When = Literal["before", "after"]


@dataclass
class PaymentServer:
    """Applies payments and counts them; kills the one it was told to."""

    #: ``(key, what)`` of every effect, in order.
    applied: list[tuple[str, str]] = field(default_factory=list)
    #: How often each key was asked for.
    requests: Counter[str] = field(default_factory=Counter)
    #: Kill whoever makes this request (1: the next one), once.
    kill_at: int | None = None
    kill_when: When = "after"

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        payments = self

        class Handler(_Handler):
            server_state = payments

        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens: host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._server.shutdown()
        self._server.server_close()

    def paid(self) -> Counter[str]:
        """How often each thing was paid for, whatever the key."""
        return Counter(what for _, what in self.applied)

    def keys(self) -> Counter[str]:
        """How often each key was applied."""
        return Counter(key for key, _ in self.applied)

    def pay(self, key: str, what: str, pid: int, *, once: bool) -> str | None:
        """The receipt; None if the process that asked is dead."""
        with self._lock:
            self.requests[key] += 1
            killing = self._its_turn()
            if killing and self.kill_when == "before":
                os.kill(pid, signal.SIGKILL)
                return None
            if not (once and any(key == known for known, _ in self.applied)):
                self.applied.append((key, what))
            if killing:
                os.kill(pid, signal.SIGKILL)
                return None
            return receipt(what)

    def _its_turn(self) -> bool:
        if self.kill_at is None:
            return False
        self.kill_at -= 1
        if self.kill_at:
            return False
        self.kill_at = None
        return True

    def done(self, key: str) -> str | None:
        """The receipt of a key that was applied."""
        with self._lock:
            return next((receipt(what) for known, what in self.applied if known == key), None)


def receipt(what: str) -> str:
    """What is given for a payment; the same whenever it is asked for."""
    return f"receipt for {what}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed breaks its connection; that is no error here."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server_state: PaymentServer

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"]))
        if not text:
            return  # killed before it had said what it wants
        body = json.loads(text)
        given = self.server_state.pay(body["key"], body["what"], body["pid"], once=body["once"])
        if given is not None:
            self._answer(given)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = parse_qs(parts.query)
        if parts.path == "/done":
            self._answer(self.server_state.done(asked["key"][0]))
        elif parts.path == "/keys":
            self._answer(self.server_state.keys())
        elif parts.path == "/price":
            self._answer(10 * len(asked["what"][0]))
        else:
            self.send_error(404)

    def _answer(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
