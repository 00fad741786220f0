"""What the server tells its listeners as it happens: named events, each listener with a queue of its own.

    broker.publish("status", {...})
    async for frame in broker.stream(): ...        # bytes of a `text/event-stream`

Publishing never waits. A listener that is slow loses states that newer ones have replaced, and one that is
hopelessly slow is let go: its browser connects again and is told the present state first.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

HEARTBEAT_S = 15.0
"""A comment this often: proxies and browsers close streams that are silent, and a write meets who is gone."""

LISTENERS = 64
QUEUED = 64

_STATES = frozenset({"status", "changed"})
"""Events of which only the latest of each name counts."""

Event = tuple[str, str]


class Broker:
    """Hands events to every listener. `publish` may be called from any thread."""

    def __init__(self, *, most_listeners: int = LISTENERS, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._most = most_listeners
        self._heartbeat_s = heartbeat_s
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._arrivals = 0
        self._is_closed = False

    @property
    def arrivals(self) -> int:
        """How many have begun to listen so far."""
        return self._arrivals

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def publish(self, name: str, data: Any) -> None:
        """Tell everybody. `data` is what JSON can hold."""
        with self._lock:
            listeners = tuple(self._listeners)
        if listeners:
            event = (name, _json(data))
            for listener in listeners:
                listener.put(event)

    @property
    def has_room(self) -> bool:
        """Whether one more may listen: there are not too many, and the server is not stopping."""
        return not self._is_closed and len(self._listeners) < self._most

    async def stream(self, *, first: tuple[str, Any] | None = None) -> AsyncIterator[bytes]:
        """The bytes of an event stream, until the broker is closed; `first` is told before all else."""
        listener = Listener(asyncio.get_running_loop(), self._forget)
        with self._lock:
            if not self.has_room:
                return
            self._listeners.add(listener)
            self._arrivals += 1
        try:
            yield b"retry: 2000\n\n"
            if first is not None:
                yield frame(first[0], _json(first[1]))
            while True:
                try:
                    event = await asyncio.wait_for(listener.get(), self._heartbeat_s)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if event is None:
                    return
                yield frame(*event)
        finally:
            listener.close()

    def close(self) -> None:
        """End all streams; nobody can listen any more."""
        with self._lock:
            self._is_closed = True
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener.close()

    def _forget(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.discard(listener)


class Listener:
    """A bounded queue between the threads that publish and one coroutine that reads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, forget: Callable[[Listener], None]) -> None:
        self._loop = loop
        self._forget = forget
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._is_closed = False
        self._waiting = asyncio.Event()

    def put(self, event: Event) -> None:
        """Queue an event; a state takes the place of the one before. Called from any thread."""
        with self._lock:
            if self._is_closed:
                return
            if event[0] in _STATES:
                for old in [old for old in self._events if old[0] == event[0]]:
                    self._events.remove(old)
            self._events.append(event)
            is_hopeless = len(self._events) > QUEUED
        if is_hopeless:
            self.close()
        self._wake()

    async def get(self) -> Event | None:
        """The next event; None once the listener is closed."""
        while True:
            with self._lock:
                if self._is_closed:
                    return None
                if self._events:
                    return self._events.popleft()
                self._waiting.clear()
            await self._waiting.wait()

    def close(self) -> None:
        """End the stream of this listener."""
        with self._lock:
            self._is_closed = True
            self._events.clear()
        self._forget(self)
        self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._waiting.set)
        except RuntimeError:  # the loop is gone, and with it whoever waited
            self._forget(self)


def frame(name: str, data: str) -> bytes:
    """One event of a `text/event-stream`. `data` is JSON, which has no line breaks of its own."""
    return f"event: {name}\ndata: {data}\n\n".encode("utf-8", "replace")


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
