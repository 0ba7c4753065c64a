"""A memory game as a session function that takes turns: "I packed my bag".

Run it, open the page at the printed address, and name a thing. You hear all things that you have
packed so far; then name the next one. Speak over them, and the bag is empty. Five things win.

Install: ``pip install 'fastrtc-anyio[server,vad]'``
"""

from fastrtc_anyio import ReplyInterrupted, Session, Stream

GOAL = 5


async def play(session: Session) -> None:
    bag = []  # what the user has said; each call has its own bag
    async for utterance in session.utterances():
        bag.append(utterance.audio)
        outcome = await utterance.reply(bag)
        if isinstance(outcome, ReplyInterrupted):
            bag.clear()
            session.messages.send_nowait("You could not wait: the bag is empty.")
        elif len(bag) == GOAL:
            session.hang_up("The bag is full.")
        else:
            session.messages.send_nowait(f"Things in the bag: {len(bag)}")


stream = Stream(
    play,
    modality="audio",
    mode="send-receive",
    ui_args={"title": "I packed my bag", "subtitle": "Name a thing, listen, and name another"},
)

if __name__ == "__main__":
    stream.launch()
