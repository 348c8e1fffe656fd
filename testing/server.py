"""A loopback server that speaks OpenAI's Chat Completions, with scripted answers and faults.

The real client talks to it over a real socket, so retries, timeouts, streaming and cancellation are the
client's own. It binds 127.0.0.1 on a free port, needs no dependency and lives in a thread::

    with FakeOpenAI(["Hello."]) as server:
        model = OpenAIChatModel("any", base_url=server.base_url, api_key="any")
        ...
        assert server.requests[0].json["messages"][0]["content"] == "Hi"
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

from .wire import answer_body, answer_chunks

_WORDS = re.compile(r"\S+\s*|\s+")
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True, slots=True)
class Call:
    """A function call in a scripted answer, in the wire's own words."""

    #: The wire name, e.g. ``weather-forecast``.
    name: str
    #: A dict becomes JSON text; text is sent as it is, malformed or not.
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    #: None: ``call_1``, ``call_2`` … counted over the server's life. ``""`` is sent empty.
    id: str | None = None
    #: Send the arguments as a JSON object, as some servers do.
    as_object: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer. A plain string in a script is ``Reply(text)``."""

    text: str | None = None
    calls: tuple[Call, ...] = ()
    #: None: ``tool_calls`` with calls, else ``stop``. ``""`` leaves it null.
    finish_reason: str | None = None
    refusal: str | None = None
    #: The usage object; None leaves it out, as some servers do.
    usage: Mapping[str, Any] | None = field(
        default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    )
    #: How the text is cut when streamed; None: word by word.
    pieces: Sequence[str] | None = None
    #: Seconds before the answer, and between streamed chunks.
    delay: float = 0.0
    chunk_delay: float = 0.0
    #: Streamed: drop the connection after this many chunks.
    cut_after: int | None = None
    #: Streamed: leave out ``data: [DONE]``.
    done: bool = True
    #: Sent as the body (or as the one streamed ``data:`` line) in place of all of the above.
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure in place of an answer: an HTTP status, or a connection that is dropped."""

    status: int = 500
    message: str = "The server had an error."
    #: OpenAI's error code, e.g. ``context_length_exceeded``.
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Sent as the body in place of an error object.
    raw: bytes | None = None
    #: Close the connection without a word.
    drop: bool = False
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as it came over the wire."""

    method: str
    path: str
    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body as JSON."""
        value: dict[str, Any] = json.loads(self.body)
        return value


Answer = str | Reply | Fault
#: Answers in order, or a function from the request to its answer.
Script = Sequence[Answer] | Callable[[Received], Answer]


class FakeOpenAI:
    """A scripted Chat Completions server on 127.0.0.1, started and stopped by ``with``.

    A request the script has no answer for gets status 400 and the code ``script_exhausted``, which no
    client retries. What was received is in :attr:`requests`, in order.
    """

    def __init__(self, script: Script = (), *, model: str = "fake-model") -> None:
        self._decide = script if callable(script) else None
        self._script: list[Answer] = [] if callable(script) else list(script)
        self._model = model
        self._calls = 0
        self._served = 0
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        #: Every request received so far.
        self.requests: list[Received] = []
        #: Requests whose client went away before its answer was complete.
        self.abandoned = 0
        #: Connections accepted so far.
        self.connections = 0
        #: The port it listens on; 0 before it is started.
        self.port = 0

    @property
    def base_url(self) -> str:
        """What a client is given as its ``base_url``."""
        return f"http://127.0.0.1:{self.port}/v1"

    def add(self, *answers: Answer) -> None:
        """Append to the script."""
        self._script.extend(answers)

    def assert_complete(self) -> None:
        """Raise ``AssertionError`` unless every scripted answer was given."""
        left = len(self._script) - self._served
        if left:
            raise AssertionError(f"{left} of {len(self._script)} scripted answers were never asked for.")

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="fake-openai", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:  # handed to the thread that waits in __enter__
            self._failure = exc
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        try:
            await self._stop.wait()
        finally:
            server.close()
            open_now = dict(self._open)
            for writer in open_now:
                writer.transport.abort()
            await asyncio.gather(*open_now.values())

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open[writer] = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            while (request := await _read_request(reader)) is not None:
                self.requests.append(request)
                if not await self._answer(request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.abandoned += 1
        finally:
            del self._open[writer]
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Write the next answer; False when the connection is to be closed after it."""
        answer = self._next(request)
        await self._pause(answer.delay, reader)
        if isinstance(answer, Fault):
            if answer.drop:
                writer.transport.abort()
                return False
            _write(writer, answer.status, answer.raw or _error(answer), answer.headers)
            await writer.drain()
            return True
        if not request.json.get("stream"):
            calls = self._numbered(answer.calls)
            body = answer_body(answer, calls, self._model) if answer.raw is None else answer.raw
            _write(writer, 200, body, {})
            await writer.drain()
            return True
        return await self._stream(answer, request, reader, writer)

    async def _stream(
        self, answer: Reply, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for sent, data in enumerate(self._events(answer, request)):
            if answer.cut_after is not None and sent >= answer.cut_after:
                await writer.drain()
                return False
            if sent and answer.chunk_delay:
                await writer.drain()
                await self._pause(answer.chunk_delay, reader)
            line = b"data: " + data + b"\n\n"
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _events(self, answer: Reply, request: Received) -> Iterator[bytes]:
        if answer.raw is not None:
            yield answer.raw
            return
        options = request.json.get("stream_options") or {}
        pieces = answer.pieces if answer.pieces is not None else _WORDS.findall(answer.text or "")
        usage = bool(options.get("include_usage"))
        yield from answer_chunks(answer, self._numbered(answer.calls), pieces, self._model, usage=usage)
        if answer.done:
            yield b"[DONE]"

    async def _pause(self, seconds: float, reader: asyncio.StreamReader) -> None:
        """Wait, but notice a client that hangs up meanwhile."""
        if seconds <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await reader.read(1)
                raise ConnectionResetError("The client hung up.")

    def _next(self, request: Received) -> Reply | Fault:
        if self._decide is not None:
            answer = self._decide(request)
        elif self._served < len(self._script):
            answer = self._script[self._served]
            self._served += 1
        else:
            answer = Fault(400, f"The script has no answer number {self._served + 1}.", "script_exhausted")
        return Reply(answer) if isinstance(answer, str) else answer

    def _numbered(self, calls: Sequence[Call]) -> list[tuple[str, Call]]:
        numbered = []
        for call in calls:
            self._calls += 1
            numbered.append((f"call_{self._calls}" if call.id is None else call.id, call))
        return numbered


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    """The next request on a connection, or None when the client has closed it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        if exc.partial:
            raise
        return None
    start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = start.split(" ", 2)
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)


def _write(writer: asyncio.StreamWriter, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"content-length: {len(body)}")
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)


def _error(fault: Fault) -> bytes:
    kind = "rate_limit_error" if fault.status == 429 else "error"
    return json.dumps(
        {"error": {"message": fault.message, "type": kind, "param": None, "code": fault.code}}
    ).encode()
