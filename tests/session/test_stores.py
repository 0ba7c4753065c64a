"""The store of a stream in memory."""

from __future__ import annotations

import anyio

from fastrtc_anyio import MemoryStore

KEY, OTHER = "a" * 64, "b" * 64


async def test_only_one_taker_gets_the_newest_value() -> None:
    store = MemoryStore()
    assert await store.save(KEY, b"1", 10)
    assert await store.save(KEY, b"2", 10)
    assert [await store.take(KEY), await store.take(KEY)] == [b"2", None]


async def test_taken_key_refuses_further_values() -> None:
    store = MemoryStore()
    await store.save(KEY, b"1", 10)
    await store.take(KEY)
    assert not await store.save(KEY, b"2", 10)
    assert await store.take(KEY) is None
    await anyio.sleep(10.1)
    assert await store.save(KEY, b"3", 10)


async def test_value_expires() -> None:
    store = MemoryStore()
    await store.save(KEY, b"1", 10)
    await anyio.sleep(9.9)
    await store.save(OTHER, b"2", 0.2)
    await anyio.sleep(0.15)
    assert [await store.take(KEY), await store.take(OTHER)] == [None, b"2"]
    await anyio.sleep(1)
    assert await store.take(KEY) is None
    assert not store._entries
    assert not store._bytes


async def test_deleted_value_is_gone() -> None:
    store = MemoryStore()
    await store.save(KEY, b"1", 10)
    await store.delete(KEY)
    await store.delete(KEY)
    assert await store.take(KEY) is None
    assert not store._entries
    assert not store._bytes


async def test_full_store_drops_the_value_saved_longest_ago() -> None:
    store = MemoryStore(max_bytes=10)
    for key, size in ((KEY, 4), (OTHER, 4), (KEY, 5), ("c" * 64, 5)):
        await store.save(key, bytes(size), 10)
    assert [await store.take(key) for key in (KEY, OTHER, "c" * 64)] == [bytes(5), None, bytes(5)]


async def test_unknown_keys_leave_nothing() -> None:
    store = MemoryStore()
    for number in range(100):
        assert await store.take(f"{number:064}") is None
    assert not store._entries
