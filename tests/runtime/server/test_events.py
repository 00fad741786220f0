"""The broker: everybody is told, nobody is waited for, and streams end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from qvl_local.runtime.server.events import QUEUED, Broker

PATIENCE_S = 30.0


def parsed(frame: bytes) -> tuple[str, Any]:
    name, data = frame.decode().rstrip("\n").split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def begun(broker: Broker, **options: Any) -> AsyncIterator[bytes]:
    """A stream after its first line, so that it listens."""
    stream = broker.stream(**options)
    assert (await anext(stream)).startswith(b"retry:")
    return stream


async def rest_of(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [frame async for frame in stream]


def test_every_listener_is_told_from_any_thread() -> None:
    async def main() -> None:
        broker = Broker()
        streams = [await begun(broker, first=("status", {"items": 1})) for _ in range(3)]
        for stream in streams:
            assert parsed(await anext(stream)) == ("status", {"items": 1})
        thread = threading.Thread(target=broker.publish, args=("changed", {"name": "größer"}))
        thread.start()
        for stream in streams:
            told = await asyncio.wait_for(anext(stream), PATIENCE_S)
            assert parsed(told) == ("changed", {"name": "größer"})
        thread.join()
        broker.close()
        assert [await rest_of(stream) for stream in streams] == [[], [], []]
        assert broker.listeners == 0

    asyncio.run(main())


def test_a_slow_listener_gets_the_latest_state_only() -> None:
    async def main() -> None:
        broker = Broker()
        stream = await begun(broker)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        for number in range(1000):
            broker.publish("status", {"number": number})
            broker.publish("changed", {"generation": number})
        told = [parsed(await waiting), parsed(await anext(stream))]
        assert told == [("status", {"number": 999}), ("changed", {"generation": 999})]
        broker.close()
        assert await rest_of(stream) == []

    asyncio.run(main())


def test_a_hopeless_listener_is_let_go() -> None:
    async def main() -> None:
        broker = Broker()
        stream = await begun(broker)
        waiting = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
        for number in range(QUEUED + 1):
            broker.publish("found", {"number": number})
        assert broker.listeners == 0
        assert await asyncio.wait_for(waiting, PATIENCE_S) is None

    asyncio.run(main())


def test_a_silent_stream_has_a_heart() -> None:
    async def main() -> None:
        broker = Broker(heartbeat_s=0.01)
        stream = await begun(broker)
        assert await asyncio.wait_for(anext(stream), PATIENCE_S) == b": still here\n\n"
        broker.publish("changed", {})
        frames = []
        while not frames or frames[-1].startswith(b":"):
            frames.append(await asyncio.wait_for(anext(stream), PATIENCE_S))
        assert parsed(frames[-1]) == ("changed", {})
        broker.close()
        await rest_of(stream)

    asyncio.run(main())


def test_a_listener_that_goes_is_forgotten() -> None:
    async def main() -> None:
        broker = Broker(most_listeners=1)
        stream = await begun(broker)
        assert not broker.has_room
        assert await rest_of(broker.stream()) == []
        await stream.aclose()  # type: ignore[attr-defined]
        assert broker.has_room
        broker.publish("status", {})

    asyncio.run(main())


def test_nobody_can_listen_to_a_closed_broker() -> None:
    async def main() -> None:
        broker = Broker()
        broker.close()
        assert not broker.has_room
        assert await rest_of(broker.stream()) == []

    asyncio.run(main())


def test_a_listener_whose_loop_is_gone_is_forgotten() -> None:
    broker = Broker()
    kept: list[AsyncIterator[bytes]] = []

    async def main() -> None:
        kept.append(await begun(broker))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()  # without ending its generators, as a thread that is killed would
    broker.publish("status", {})
    assert broker.listeners == 0


@pytest.mark.parametrize("text", ["line\nbreak", "\u2028", "\ud800"])
def test_data_stays_on_its_line(text: str) -> None:
    async def main() -> None:
        broker = Broker()
        stream = await begun(broker, first=("found", {"text": text}))
        frame = await anext(stream)
        assert frame.count(b"\n") == 3
        assert frame.startswith(b"event: found\ndata: {")
        broker.close()
        await rest_of(stream)

    asyncio.run(main())
