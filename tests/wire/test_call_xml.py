"""Options of telephone calls, and the XML that answers a call."""

from __future__ import annotations

from typing import Any

import pytest

from fastrtc_anyio._wire.call_xml import TelephoneOptions, answer_call, recognise_carrier


def test_xml_connects_the_call_to_the_websocket() -> None:
    url = 'wss://example.com:8443/a?b="c"'
    twilio = answer_call("twilio", url, TelephoneOptions(greeting="A & B"))
    written = 'url="wss://example.com:8443/a?b=&quot;c&quot;"'
    assert f"<Say>A &amp; B</Say><Connect><Stream {written}/>" in twilio
    telnyx = answer_call("telnyx", url, TelephoneOptions(farewell="Bye"), "a.b")
    assert (
        f'<Connect><Stream {written} bidirectionalMode="rtp" codec="PCMU" '
        'bidirectionalCodec="PCMU"><Parameter name="fastrtc_token" value="a.b"/></Stream>'
        "</Connect><Say>Bye</Say>"
    ) in telnyx
    wide = answer_call("telnyx", url, TelephoneOptions(telnyx_codec="L16"))
    assert 'bidirectionalCodec="L16" bidirectionalSamplingRate="16000"></Stream>' in wide
    plivo = answer_call("plivo", url, TelephoneOptions(greeting="Hi"))
    assert '<Speak>Hi</Speak><Stream bidirectional="true" keepCallAlive="true"' in plivo
    assert "wss://example.com:8443/a?b=&quot;c&quot;</Stream>" in plivo


def test_carrier_is_detected_from_its_headers_and_fields() -> None:
    assert recognise_carrier({"telnyx-signature-ed25519": "x"}, {"CallSid": "v3:1"}) == "telnyx"
    assert recognise_carrier({}, {"CallSid": "v3:1", "CallSidLegacy": "v3:1"}) == "telnyx"
    assert recognise_carrier({"x-plivo-signature-v3": "x"}, {}) == "plivo"
    assert recognise_carrier({}, {"CallUUID": "1"}) == "plivo"
    assert recognise_carrier({}, {"CallSid": "CA1"}) == "twilio"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"carrier": "bell"}, "got 'bell'"),
        ({"carrier": "plivo", "auth_token": "x"}, "auth_token is Twilio's"),
        ({"carrier": "twilio", "plivo_auth_token": "x"}, "plivo_auth_token is Plivo's"),
        ({"auth_token": ""}, "must not be empty"),
        ({"plivo_auth_token": ""}, "must not be empty"),
        ({"telnyx_public_key": "AAAA"}, "must be 32 bytes in base64; got 'AAAA'"),
        ({"telnyx_public_key": "\u00e9"}, "must be 32 bytes in base64"),
        ({"secret": "x"}, "has no effect without telnyx_public_key"),
        ({"telnyx_codec": "OPUS"}, "telnyx_codec must be one of"),
        ({"public_url": "example.com"}, "like https://example.com"),
        ({"public_url": "https://exam ple.com"}, "like https://example.com"),
        ({"public_url": "https://example.com:99999"}, "like https://example.com"),
        ({"public_url": "https://example.com:\uff11\uff12"}, "like https://example.com"),
        ({"public_url": "https://me@example.com"}, "like https://example.com"),
        ({"public_url": "https://example.com/#a"}, "like https://example.com"),
    ],
)
def test_invalid_telephone_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TelephoneOptions(**options)


def test_secrets_are_not_in_the_repr() -> None:
    options = TelephoneOptions(auth_token="secret", plivo_auth_token="secret")
    assert "secret'" not in repr(options)
