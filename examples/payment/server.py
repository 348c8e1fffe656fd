"""A bank on this machine: an HTTP server on loopback that keeps a book of what it has paid.

::

    POST /payments   Idempotency-Key: K   {"to": …, "amount": …}   pays once for each key
    POST /transfers  {"to": …, "amount": …, "reference": K}        pays each time it is asked
    GET  /transfers?reference=K                                    that transfer, or 404
    GET  /book                                                     {"requests": …, "payments": […]}
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class Bank:
    """The server, in a thread of its own::

    with Bank() as bank:
        ...
        assert len(bank.payments) == 1
    """

    def __init__(self) -> None:
        #: How often somebody asked for money to be sent.
        self.requests = 0
        #: What was sent, in order.
        self.payments: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        bank = self

        class Handler(_Handler):
            book = bank

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def send(self, order: dict[str, Any], *, key: str | None = None) -> dict[str, Any]:
        """Pay, or give the receipt once more if ``key`` was paid already."""
        with self._lock:
            self.requests += 1
            paid = self.find(key=key) if key is not None else None
            if paid is None:
                paid = {"receipt": f"R-{len(self.payments) + 1}", "key": key, **order}
                self.payments.append(paid)
            return paid

    def find(self, **wanted: Any) -> dict[str, Any] | None:
        """The first payment with these values."""
        fitting = (p for p in self.payments if wanted.items() <= p.items())
        return next(fitting, None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    book: Bank

    def do_POST(self) -> None:
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/payments":
            self._answer(201, self.book.send(order, key=self.headers["Idempotency-Key"]))
        elif self.path == "/transfers":
            self._answer(201, self.book.send(order))
        else:
            self._answer(404, {})

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        if place.path == "/book":
            self._answer(200, {"requests": self.book.requests, "payments": self.book.payments})
            return
        reference = parse_qs(place.query).get("reference", [""])[0]
        found = self.book.find(reference=reference) if place.path == "/transfers" else None
        self._answer(404 if found is None else 200, found or {})

    def _answer(self, status: int, data: dict[str, Any]) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the book is what is looked at."""
