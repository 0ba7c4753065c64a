"""Mount a stream in a FastAPI application below /voice, with an endpoint that ends its calls.

Run it, or ``uvicorn mount_fastapi:app``, and open /voice/ at the printed address.

Install: ``pip install 'fastrtc-anyio[server]' fastapi uvicorn websockets``
"""

import uvicorn
from fastapi import FastAPI, HTTPException

from fastrtc_anyio import Session, Stream, UnknownSession
from fastrtc_anyio.server import page_route


async def echo(session: Session) -> None:
    async for frame in session.audio_in:
        await session.audio_out.send(frame)


stream = Stream(echo, modality="audio", mode="send-receive", concurrency_limit=20, time_limit=600)
app = FastAPI(routes=[page_route("/voice/")])
stream.mount(app, "/voice", tags=["voice"])  # adds POST /voice/webrtc/offer


@app.get("/calls", tags=["voice"])
async def calls():
    return list(stream.sessions)


@app.delete("/calls/{session_id}", tags=["voice"])
async def hang_up(session_id: str):
    try:
        stream.update_connection(session_id, "closed")
    except UnknownSession as exc:
        raise HTTPException(exc.status_hint, str(exc)) from exc


if __name__ == "__main__":
    uvicorn.run(app)
