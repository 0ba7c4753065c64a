from __future__ import annotations
from typing import Any
import gc, warnings
import anyio, httpx, numpy as np, pytest, trio.testing
from fastrtc_anyio import AsyncStreamHandler, Stream
from fastrtc_anyio.testing import open_call
from fastrtc_anyio.server.launch import open_server
from tests.parity.real_time.test_programs import Counting, make_app, make_stream
from tests.parity.real_time.dial import dial
from tests.server.calls import wait_until
from tests.unit.handlers import AsyncEcho, Echo
from tests.webrtc.calls import open_stream, place_call

def test_b1_rtc_configuration_may_be_a_function() -> None:
    async def credentials(): return {"iceServers": []}
    Stream(Echo(), modality="audio", rtc_configuration=credentials)

async def test_b2_update_connection_can_be_awaited() -> None:
    stream = open_stream(AsyncEcho)
    async with stream, place_call(stream, webrtc_id="caller"):
        await stream.update_connection("caller", "closed")

async def test_b3_a_reader_that_breaks_off_is_forgotten() -> None:
    async with open_call(Counting()) as call:
        async for _ in call.session.outputs.read():
            break
        assert call.session.statistics().outputs.readers == 0

async def test_b3_a_reader_that_breaks_off_leaves_no_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with open_call(Counting()) as call:
            async for _ in call.session.outputs.read():
                break
        del call
        gc.collect()
    assert [str(w.message) for w in caught] == []

async def test_b3_a_client_of_events_that_leaves_is_forgotten() -> None:
    stream = make_stream(Counting())
    async with open_server(make_app(stream)) as url, dial(url, "caller"):
        (session,) = stream.sessions.values()
        port = int(url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as connection:
            await connection.send(b"GET /updates?webrtc_id=caller HTTP/1.1\r\nHost: x\r\n\r\n")
            await wait_until(lambda: session.statistics().outputs.readers == 1)
        await wait_until(lambda: session.statistics().outputs.readers == 0)

@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})])
async def test_b4_two_calls_on_one_virtual_clock() -> None:
    async with open_call(AsyncEcho()):
        async with open_call(AsyncEcho()):
            await anyio.sleep(1)
        await anyio.sleep(1)  # hangs for ever

@pytest.mark.parametrize("rate", [1000, 8000, 44_100])
async def test_b5_a_million_samples_do_not_stop_the_event_loop(rate: int) -> None:
    class Big(AsyncStreamHandler):
        async def receive(self, frame: Any) -> None: ...
        async def emit(self) -> Any:
            return rate, np.zeros(1_000_000, np.float32)
        def copy(self) -> Big:
            return Big()

    worst = 0.0
    async def heartbeat() -> None:
        nonlocal worst
        while True:
            before = anyio.current_time()
            await anyio.sleep(0.005)
            worst = max(worst, anyio.current_time() - before)

    async with anyio.create_task_group() as tg:
        tg.start_soon(heartbeat)
        async with open_call(Big()):
            await anyio.sleep(1)
        tg.cancel_scope.cancel()
    print("worst", rate, worst)
    assert worst < 0.1
