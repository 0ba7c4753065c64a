"""Mutations of what clients send, each aware of the grammar: SDP, JSON, forms, and HTTP heads.

Blind changes of bytes rarely get past the first check of a parser. These keep most of a valid input
and change a line, a field, a number or a length. :mod:`.datagrams` has those of packets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote_plus

from .choices import Choices

NUMBERS = (
    *("0", "00", "-0", "-1", "1", "01", "63", "64", "95", "96", "127", "128", "255", "256", "300"),
    *("65535", "65536", "4294967295", "4294967296", "18446744073709551616", "1e5", "0x10", "1_0"),
    *("9" * 30, "9" * 400, "9" * 5000, "\u0663", "\uff19", "1.5", "nan", "inf", "+1", " 1", ""),
)
"""Spellings at the limits of fields, and some that only Python takes for numbers."""
TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\ud800",
        "\u00e9",
        "\u202e",
        "\U0001f600",
        "\r\n",
        "\n",
        "\r",
        "\t",
        ":",
        ";",
    ),
    *("=", "/", "*", ",", '"', "'", "%s", "{}", "%00", "<script>", "../..", "a" * 300, "x" * 5000),
    *("127.0.0.1", "::1", "[", "[::1", "224.0.0.1", "x.local", "null", "true", "%n", "BUNDLE"),
)
_WORD = re.compile(r"[^\s:;=/,]+")


def mutate_sdp(choices: Choices, sdp: str) -> str:
    """Change a few lines of a session description, or of a fragment of one."""
    lines = sdp.splitlines() or [""]
    for _ in range(1 + choices.number(4)):
        _change_line(choices, lines)
        lines = lines or [""]
    end = choices.pick(("\r\n",) * 13 + ("\n", "\r", "\n\r"))
    return end.join([*lines, ""])


def _change_line(choices: Choices, lines: list[str]) -> None:
    at = choices.number(len(lines))
    line = lines[at]
    match choices.number(10):
        case 0:
            lines[at] = _replace_word(choices, line, NUMBERS)
        case 1:
            lines[at] = _replace_word(choices, line, TEXTS)
        case 2:
            del lines[at]
        case 3:
            lines.insert(choices.number(len(lines) + 1), line)
        case 4:
            lines.insert(choices.number(len(lines)), lines.pop(at))
        case 5:
            lines[at] = line[: choices.number(len(line) + 1)]
        case 6:
            # A word of another line: a valid value at the wrong place.
            words = _WORD.findall(choices.pick(lines))
            lines[at] = _replace_word(choices, line, words or [""])
        case 7:
            cut = choices.number(len(line) + 1)
            lines[at] = line[:cut] + choices.pick(TEXTS) + line[cut:]
        case 8:
            lines[at:at] = [line] * choices.pick((2, 8, 40, 130))
        case _:
            lines[at] = _renumber(choices, line)


def _replace_word(choices: Choices, line: str, words: Sequence[str]) -> str:
    found = list(_WORD.finditer(line))
    if not found:
        return choices.pick(words)
    word = choices.pick(found)
    return line[: word.start()] + choices.pick(words) + line[word.end() :]


def _renumber(choices: Choices, line: str) -> str:
    found = list(re.finditer(r"\d+", line))
    if not found:
        return line
    number = choices.pick(found)
    return line[: number.start()] + choices.pick(NUMBERS) + line[number.end() :]


class _Raw(int):
    """A number with a spelling that ``json.dumps`` would not choose."""

    spelling: str

    def __new__(cls, spelling: str) -> _Raw:
        made = super().__new__(cls)
        made.spelling = spelling
        return made


_ODD: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**64, 10**300, 10**400, 1.5, -0.0, 1e308),
    *(float("nan"), float("inf"), float("-inf"), [], {}, [[]], {"": None}, [None] * 100),
    *(_Raw("1e400"), _Raw("-"), _Raw("01"), _Raw("9" * 5000), _Raw("[" * 900 + "]" * 900)),
    *(_Raw("[" * 100_000), _Raw('{"a":' * 500 + "1" + "}" * 500), _Raw('"\\ud800"'), _Raw("\x00")),
)


def mutate_json(choices: Choices, value: object) -> str:
    """Change a few values of a JSON document, and sometimes the text itself."""
    for _ in range(choices.number(4)):
        value = _change_value(choices, value)
    text = _spell(value)
    for _ in range(choices.pick((0, 0, 0, 0, 0, 1, 2))):
        cut = choices.number(len(text) + 1)
        other = cut + choices.number(8)
        text = text[:cut] + choices.pick((*TEXTS, "[", "]", "{", "}", "\\")) + text[other:]
    return text


def _spell(value: object) -> str:
    if isinstance(value, _Raw):
        return value.spelling
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(str(k))}: {_spell(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_spell, value))}]"
    if isinstance(value, int) and abs(value) > 10**100:
        return str(value)
    return json.dumps(value)


def _change_value(choices: Choices, value: object) -> object:
    """Change the value itself, or one inside it."""
    if isinstance(value, Mapping) and value and not choices.chance(8):
        changed = dict(value)
        key = choices.pick(list(changed))
        match choices.number(8):
            case 0:
                del changed[key]
            case 1:
                changed[choices.pick(TEXTS)] = changed[key]
            case 2:
                changed[key] = changed[choices.pick(list(value))]
            case _:
                changed[key] = _change_value(choices, changed[key])
        return changed
    if isinstance(value, list) and value and not choices.chance(8):
        at = choices.number(len(value))
        return [*value[:at], _change_value(choices, value[at]), *value[at + 1 :]]
    if isinstance(value, str) and value:
        match choices.number(4):
            case 0:
                return _replace_word(choices, value, (*TEXTS, *NUMBERS))
            case 1:
                cut = choices.number(len(value) + 1)
                return value[:cut] + choices.pick(TEXTS) + value[cut:]
            case 2:
                return value[: choices.number(len(value) + 1)]
    return choices.pick((*_ODD, *TEXTS, *NUMBERS))


def mutate_form(choices: Choices, fields: Mapping[str, str]) -> bytes:
    """Change the fields of a form, and its encoding."""
    pairs = list(fields.items())
    for _ in range(choices.number(4)):
        at = choices.number(len(pairs) + 1)
        name, value = pairs[at] if at < len(pairs) else ("", "")
        match choices.number(5):
            case 0:
                pairs[at : at + 1] = []
            case 1:
                pairs[at : at + 1] = [(choices.pick(TEXTS), value)]
            case 2:
                pairs[at : at + 1] = [(name, choices.pick((*TEXTS, *NUMBERS)))]
            case 3:
                pairs[at:at] = [(name, value)] * choices.pick((1, 3, 1001))
            case _:
                pairs[at : at + 1] = [(name, value + choices.pick(TEXTS))]
    text = "&".join(f"{_quote(name)}={_quote(value)}" for name, value in pairs)
    body = text.encode()
    return mutate_bytes(choices, body) if choices.chance(4) else body


def _quote(text: str) -> str:
    return quote_plus(text.encode("utf-8", "surrogatepass"))


def mutate_bytes(choices: Choices, data: bytes) -> bytes:
    """Change a few bytes, or the length."""
    changed = bytearray(data)
    for _ in range(1 + choices.number(4)):
        at = choices.number(len(changed) + 1)
        match choices.number(6):
            case 0:
                changed[at : at + 1] = choices.take(1)
            case 1:
                size = choices.pick((1, 2, 4))
                changed[at : at + size] = choices.pick((b"\0", b"\xff", b"\x7f", b"\x01")) * size
            case 2:
                del changed[at:]
            case 3:
                del changed[at : at + 1 + choices.number(16)]
            case 4:
                changed[at:at] = changed[at : at + 1 + choices.number(32)]
            case _:
                changed[at:at] = choices.take(1 + choices.number(16))
    return bytes(changed)


_METHODS = (
    b"POST",
    b"GET",
    b"OPTIONS",
    b"PATCH",
    b"DELETE",
    b"HEAD",
    b"PUT",
    b"CONNECT",
    b"PRI",
    b"X",
)
_PATHS = (
    *(b"/webrtc/offer", b"/webrtc/config", b"/", b"/whip", b"/whep", b"/whip/x", b"/input_hook"),
    *(b"/outputs?webrtc_id=x", b"/telephone/incoming", b"/websocket/offer", b"/telephone/handler"),
    *(b"/%00", b"/%", b"//", b"*", b"/" + b"a" * 9000, b"/\xff", b"/?%ff=\xe9", b"http://[/", b""),
)
_FIELDS = (
    *(b"Host: 127.0.0.1", b"Host: [", b"Host: [::1", b"Host: a:99999", b"Host: \xff", b"Host:"),
    *(b"Content-Length: 3", b"Content-Length: -1", b"Content-Length: 9e9", b"Content-Length: 1, 2"),
    *(b"Content-Length: " + b"9" * 5000, b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"),
    *(b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c", b"HTTP2-Settings: AAAA"),
    *(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 99", b"Sec-WebSocket-Protocol: ,,"),
    *(
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Key: ?",
        b"Expect: 100-continue",
    ),
    *(b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99", b"Cookie: \xe9"),
    *(
        b"Origin: null",
        b"Origin: http://[",
        b"Origin: \xff",
        b"Authorization: Bearer \xe9",
        b"X" * 70,
    ),
    *(
        b"Content-Type: application/sdp",
        b"Content-Type: application/json",
        b"If-Match: \xff",
        b" x",
    ),
    *(
        b"X-Forwarded-For: 10.0.0.1, [::1, x",
        b"X-Forwarded-For: ::ffff:1.2.3.4%\xe9",
        b"Forwarded:",
    ),
    *(b'Forwarded: for="[2001:db8::1]:99999', b"Forwarded: for=_x, for=unknown;for=;=", b"TE: x"),
    *(b"X-Forwarded-Host: [", b"X-Forwarded-Proto: \xe9", b"A: " + b"a" * 70_000, b"A:\0", b": b"),
)


def odd_headers(choices: Choices) -> list[tuple[bytes, bytes]]:
    """Return a few headers as a server passes them to an application, in half of all cases."""
    found: list[tuple[bytes, bytes]] = []
    for _ in range(choices.pick((0, 0, 0, 1, 2, 4))):
        name, _, value = choices.pick(_FIELDS).partition(b":")
        odd = choices.pick(TEXTS).encode("utf-8", "replace").strip()
        found.append((name.strip().lower(), odd if choices.chance(3) else value.strip()))
    return found


_HANDSHAKE = (
    b"GET /websocket/offer HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


def websocket_frames(choices: Choices, messages: Sequence[str]) -> bytes:
    """Return a valid handshake and frames (RFC 6455 5.2), many of them against the rules."""
    frames = _HANDSHAKE
    for text in messages:
        payload = text.encode("utf-8", "surrogatepass")
        opcode = choices.pick((0x81,) * 20 + (0x82, 0x01, 0x80, 0x00, 0x88, 0x89, 0x8A, 0x83, 0xC1))
        if opcode & 15 in (8, 9, 10):
            size = choices.pick((0, 1, 2, 4, 125, 126))
            payload = choices.pick((b"\x03\xe8", b"\0\0", b"\xff\xff", b"\x03\xe8\xff\xff"))[:size]
            payload = payload.ljust(size, b"x")
        frames += _frame(choices, opcode, payload)
    return mutate_bytes(choices, frames) if choices.chance(4) else frames


def _frame(choices: Choices, opcode: int, payload: bytes) -> bytes:
    size = choices.pick((len(payload),) * 20 + (0, 126, 65_535, 1 << 31, (1 << 64) - 1))
    masked = 0 if choices.chance(20) else 0x80
    if size < 126:
        head = bytes([opcode, masked | size])
    elif size < 65_536:
        head = bytes([opcode, masked | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([opcode, masked | 127]) + size.to_bytes(8, "big")
    # A mask of zeros leaves the payload as it is.
    return head + (bytes(4) if masked else b"") + payload


_ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\0")


def http_head(choices: Choices) -> bytes:
    """Return a request, its head and the beginning of a body, in which little may be valid."""
    end = choices.pick(_ENDS)
    version = choices.pick(
        (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"", b"\xff")
    )
    fields = [b"Host: 127.0.0.1"]
    fields += [choices.pick(_FIELDS) for _ in range(choices.number(10))]
    line = choices.pick(_METHODS) + b" " + choices.pick(_PATHS) + b" " + version
    body = choices.pick((b"", b"", b"{}\n", b"3\r\n{}\n\r\n0\r\n\r\n", b"zz\r\n", b"\x81\x85abcd"))
    head = end.join([line, *fields, b"", b""]) + body
    return mutate_bytes(choices, head) if choices.chance(3) else head
