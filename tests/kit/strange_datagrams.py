"""Datagrams that no peer sends, or not in that state: for the sockets of a call."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from aioice import stun

_COOKIE = 0x2112A442
_random = random.Random(7)


@dataclass(frozen=True)
class Credentials:
    """ICE credentials of a call: the server's, and the client's user fragment."""

    user: str
    password: str
    remote_user: str


def noise(size: int) -> bytes:
    """Return random bytes, the same ones in each run."""
    return _random.randbytes(size)


def stun_message(kind: int, attributes: bytes = b"", *, cookie: int = _COOKIE) -> bytes:
    """Return a STUN message with attributes as they are."""
    return struct.pack("!HHI", kind, len(attributes), cookie) + noise(12) + attributes


def attribute(kind: int, value: bytes, size: int | None = None) -> bytes:
    """Return an attribute of STUN; ``size`` replaces its length."""
    length = len(value) if size is None else size
    return struct.pack("!HH", kind, length) + value + bytes(-len(value) % 4)


def check(
    credentials: Credentials, *, leave: str = "", nominate: bool = False, **changes: str
) -> bytes:
    """Return an authentic check.

    ``leave`` leaves out an attribute. ``changes`` replace fields of the credentials.
    """
    user = changes.get("user", credentials.user)
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    message.attributes["USERNAME"] = f"{user}:{changes.get('remote_user', credentials.remote_user)}"
    message.attributes["PRIORITY"] = 1_845_501_695
    message.attributes["ICE-CONTROLLING"] = 2**64 - 1
    if nominate:
        message.attributes["USE-CANDIDATE"] = None
    if leave in message.attributes:
        del message.attributes[leave]
    if leave != "MESSAGE-INTEGRITY":
        message.add_message_integrity(changes.get("password", credentials.password).encode())
    return bytes(message)


def dtls(kind: int, body: bytes, *, version: int = 0xFEFD, epoch: int = 0) -> bytes:
    """Return a DTLS record."""
    return (
        struct.pack("!BHH", kind, version, epoch) + bytes(6) + struct.pack("!H", len(body)) + body
    )


def rtp(size: int, *, kind: int = 96, first: int = 0x80) -> bytes:
    """Return what looks like RTP."""
    return (bytes([first, kind]) + noise(max(0, size - 2)))[:size]


def _of_stun(credentials: Credentials) -> dict[str, bytes]:
    name = f"{credentials.user}:{credentials.remote_user}".encode()
    user = attribute(0x06, name)
    forged = attribute(0x08, noise(20))
    return {
        "STUN: a request without attributes": stun_message(0x0001),
        "STUN: a request with a user name alone": stun_message(0x0001, user),
        "STUN: a forged integrity": stun_message(0x0001, user + forged),
        "STUN: a short integrity": stun_message(0x0001, user + attribute(0x08, noise(3))),
        "STUN: an empty integrity": stun_message(0x0001, user + attribute(0x08, b"")),
        "STUN: the integrity of another password": check(credentials, password="x" * 24),
        "STUN: another user": check(credentials, user="abcd"),
        "STUN: another remote user": check(credentials, remote_user="abcd"),
        "STUN: no integrity": check(credentials, leave="MESSAGE-INTEGRITY"),
        "STUN: 370 attributes": stun_message(0x0001, user + forged + attribute(0x24, b"") * 350),
        "STUN: 370 unknown attributes": stun_message(0x0001, user + attribute(0x7F00, b"") * 350),
        "STUN: a user name that is no text": stun_message(
            0x0001, user + attribute(0x06, b"\xff\xfe" + name) + forged
        ),
        "STUN: a priority of one byte": stun_message(0x0001, user + attribute(0x24, b"1") + forged),
        "STUN: a role of one byte": stun_message(0x0001, user + attribute(0x802A, b"1") + forged),
        "STUN: an attribute longer than the message": stun_message(
            0x0001, user + attribute(0x24, bytes(4), 4000)
        ),
        "STUN: an address of zero bytes": stun_message(0x0001, user + attribute(0x01, b"")),
        "STUN: an address of an unknown family": stun_message(
            0x0001, user + attribute(0x20, bytes(8))
        ),
        "STUN: an error code of no bytes": stun_message(0x0111, attribute(0x09, b"")),
        "STUN: a truncated header": stun_message(0x0001)[:12],
        "STUN: a truncated attribute": stun_message(0x0001, user)[:-2],
        "STUN: no cookie": stun_message(0x0001, user, cookie=0),
        "STUN: an indication": stun_message(0x0011, user),
        "STUN: a response to no request": stun_message(0x0101, attribute(0x20, bytes(8))),
        "STUN: an error to no request": stun_message(0x0111, attribute(0x09, b"\0\0\4\x57Role")),
        "STUN: a request of TURN, allocate": stun_message(0x0003, user),
        "STUN: a request of TURN, refresh": stun_message(0x0004, user),
        "STUN: data of TURN": stun_message(
            0x0017, attribute(0x12, bytes(8)) + attribute(0x13, rtp(40))
        ),
        "STUN: all bits of the type": stun_message(0x3FFF, user),
        "STUN: 1,500 bytes": stun_message(0x0001, user + attribute(0x7F01, noise(1440))),
        "STUN: 1,600 bytes": stun_message(0x0001, user + attribute(0x7F01, noise(1540))),
        "STUN: zeros": bytes(20),
        "STUN: 65,507 bytes": stun_message(0x0001, user + attribute(0x7F01, noise(65_432)))[
            :65_507
        ],
    }


def _of_dtls() -> dict[str, bytes]:
    hello = b"\1" + (50).to_bytes(3) + bytes(5) + (50).to_bytes(3) + b"\xfe\xfd" + noise(48)
    return {
        "DTLS: a fatal alert": dtls(21, b"\2\x28"),
        "DTLS: a close alert": dtls(21, b"\1\0"),
        "DTLS: an encrypted alert": dtls(21, noise(40), epoch=1),
        "DTLS: a short alert": dtls(21, b"\2"),
        "DTLS: a handshake of random bytes": dtls(22, noise(40)),
        "DTLS: a ClientHello": dtls(22, hello),
        "DTLS: a fragment of no message": dtls(22, b"\x0b\xff\xff\xff\0\0\0\0\0\0\0\1x"),
        "DTLS: an empty handshake": dtls(22, b""),
        "DTLS: a change of the cipher": dtls(20, b"\1"),
        "DTLS: data in plaintext": dtls(23, b"hello, world"),
        "DTLS: encrypted data": dtls(23, noise(60), epoch=1),
        "DTLS: a heartbeat": dtls(24, b"\1\x40\0"),
        "DTLS: an unknown type": dtls(63, noise(20)),
        "DTLS: an unknown version": dtls(22, noise(20), version=0x1234),
        "DTLS: a length beyond the end": dtls(22, noise(40))[:-20],
        "DTLS: a truncated record": dtls(22, b"")[:12],
        "DTLS: a record of 1.3": b"\x2c\0\1" + noise(40),
        "DTLS: 1,500 bytes": dtls(22, noise(1487)),
        "DTLS: 65,507 bytes": dtls(22, noise(65_494)),
    }


def _of_rtp() -> dict[str, bytes]:
    return {
        "RTP: a header": rtp(12),
        "RTP: 13 bytes": rtp(13),
        "RTP: 40 bytes": rtp(40),
        "RTP: 15 sources": rtp(20, first=0x8F),
        "RTP: an extension beyond the end": rtp(14, first=0x90) + b"\xff\xff",
        "RTP: padding beyond the end": rtp(30, first=0xA0) + b"\xff",
        "RTP: 1,500 bytes": rtp(1500),
        "RTP: 1,501 bytes": rtp(1501),
        "RTP: 9,000 bytes": rtp(9000),
        "RTP: 65,507 bytes": rtp(65_507),
        "RTP: version 2 and one byte": b"\x80",
        "RTP: 11 bytes": rtp(11),
        "RTCP: 8 bytes": rtp(8, kind=200),
        "RTCP: 12 bytes": rtp(12, kind=201),
        "RTCP: a goodbye": rtp(40, kind=203, first=0x81),
        "RTCP: a request of a key frame": rtp(40, kind=206, first=0x81),
        "RTCP: 1,501 bytes": rtp(1501, kind=200),
        "RTCP: 65,507 bytes": rtp(65_507, kind=200),
    }


def _of_others() -> dict[str, bytes]:
    return {
        "empty": b"",
        "one zero": b"\0",
        "ZRTP": b"\x10\0\0\1ZRTP" + noise(40),
        "a channel of TURN": b"\x40\0\0\x28" + rtp(40),
        "the last channel of TURN": b"\x4f\xff\0\x28" + rtp(40),
        "QUIC": b"\xc3" + noise(1199),
        "HTTP": b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "SIP": b"OPTIONS sip:a@example.com SIP/2.0\r\n\r\n",
        "DNS": b"\4\xd2\1\0\0\1\0\0\0\0\0\0\7example\3com\0\0\1\0\1",
        "text": b"hello, are you there?\n",
        "zeros": bytes(1200),
        "ones": b"\xff" * 1200,
        "65,507 zeros": bytes(65_507),
        "65,507 random bytes": noise(65_507),
    }


def strange_datagrams(credentials: Credentials) -> dict[str, bytes]:
    """Return datagrams by description, none of which is authentic."""
    return _of_stun(credentials) | _of_dtls() | _of_rtp() | _of_others()


def authentic_oddities(credentials: Credentials) -> dict[str, bytes]:
    """Return checks that are authentic, but that no client sends."""
    whole = check(credentials)
    longer = whole[:2] + (len(whole) - 20 + 8).to_bytes(2) + whole[4:]
    return {
        "no priority": check(credentials, leave="PRIORITY"),
        "no role": check(credentials, leave="ICE-CONTROLLING"),
        "an attribute after the fingerprint": longer + attribute(0x24, bytes(4)),
    }
