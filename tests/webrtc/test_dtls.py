"""The DTLS handshake with clients that send more than it needs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from aiortc import RTCPeerConnection, rtcdtlstransport
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fastrtc_anyio._peers.webrtc import internals

SSL: Any = getattr(rtcdtlstransport, "SSL")  # noqa: B009 - pyOpenSSL, not exported
_CHAIN = 20
_RECORD_HEADER = 13


def make_chain() -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    """Make certificates of which each is signed by the next one."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(_CHAIN)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(i))]) for i in range(_CHAIN)]
    now = datetime.now(UTC)
    certificates = []
    for i, key in enumerate(keys):
        issuer = min(i + 1, _CHAIN - 1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[i])
            .issuer_name(names[issuer])
            .public_key(key.public_key())
            .serial_number(i + 1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        certificates.append(builder.sign(keys[issuer], hashes.SHA256()))
    return keys[0], certificates


def server_context() -> Any:
    """Make the context of a connection's transports."""
    pc = RTCPeerConnection()
    internals.set_up_dtls(pc)
    (certificate,) = getattr(pc, "_RTCPeerConnection__certificates")  # noqa: B009
    return certificate._create_ssl_context(srtp_profiles=rtcdtlstransport.SRTP_PROFILES)


def client_context() -> Any:
    key, (leaf, *others) = make_chain()
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    context.use_certificate(leaf)
    context.use_privatekey(key)
    for certificate in others:
        context.add_extra_chain_cert(certificate)
    return context


def records(connection: Any) -> Iterator[bytes]:
    """Yield the records that a side has written."""
    try:
        data = connection.bio_read(1 << 20)
    except SSL.WantReadError:
        return
    while data:
        size = _RECORD_HEADER + int.from_bytes(data[11:_RECORD_HEADER])
        yield data[:size]
        data = data[size:]


def shake_hands(*sides: Any) -> None:
    done: set[Any] = set()
    for _ in range(10):
        for side, other in (sides, sides[::-1]):
            try:
                side.do_handshake()
                done.add(side)
            except SSL.WantReadError:
                pass
            for record in records(side):
                other.bio_write(record)
        if len(done) == 2:
            return
    raise AssertionError("the handshake is not complete")


def test_chain_of_certificates_is_not_verified() -> None:
    server, client = SSL.Connection(server_context()), SSL.Connection(client_context())
    server.set_accept_state()
    client.set_connect_state()
    server.set_ciphertext_mtu(1400)
    client.set_ciphertext_mtu(1400)
    shake_hands(client, server)
    assert len(server.get_peer_cert_chain() or []) == _CHAIN - 1  # without the leaf
    assert len(server.get_verified_chain() or []) <= 2
