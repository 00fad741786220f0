"""Telling listeners of the status: everybody hears of the state of now, whatever happens to the thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from qvl_local.runtime.errors import LibraryStorageError
from qvl_local.runtime.server.events import Broker
from qvl_local.runtime.server.service import Service
from qvl_local.runtime.server.status import Teller
from qvl_local.runtime.server.watch import Watch

PATIENCE_S = 60.0


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def teller(service: Service, broker: Broker, tmp_path: Path) -> Iterator[Teller]:
    watch = Watch(lambda _: None, outside=str(tmp_path))
    teller = Teller(service.board, broker, watch)
    yield teller
    teller.close()
    watch.close()


def test_who_comes_late_is_told_the_state_of_now(broker: Broker, teller: Teller) -> None:
    async def main() -> None:
        first = broker.stream()
        await anext(first)
        assert (await asyncio.wait_for(anext(first), PATIENCE_S)).startswith(b"event: status\n")
        # Nothing changes from now on; what this one is told at first is as good as outdated.
        late = broker.stream(first=("status", {"items": -1}))
        await anext(late)
        assert b'"items":-1' in await anext(late)
        told = await asyncio.wait_for(anext(late), PATIENCE_S)
        assert told.startswith(b"event: status\n")
        assert b'"items":-1' not in told
        broker.close()

    teller.open()
    asyncio.run(main())


def test_a_library_that_fails_once_is_told_of_afterwards(
    service: Service, broker: Broker, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation, failures = service.board.generation, [LibraryStorageError("the disk is away")]

    def failing() -> int:
        if failures:
            raise failures.pop()
        return generation()

    async def main() -> None:
        stream = broker.stream()
        await anext(stream)
        assert (await asyncio.wait_for(anext(stream), PATIENCE_S)).startswith(b"event: status\n")
        broker.close()

    monkeypatch.setattr(service.board, "generation", failing)
    teller.open()
    asyncio.run(main())
    assert not failures
