"""nginx and Caddy with the configurations of the deployment guide.

They differ from the page in ports, in paths of files and in the certificate, which is self-signed.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kit.documentation import find_block
from tests.kit.waiting import wait_until

from .programs import find_port, is_free

HOST = "voice.example.com"
"""The name of the site on the page."""

NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
user root;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/voice.conf;
}}
"""
"""In place of ``/etc/nginx/nginx.conf``, which includes the configuration of the page."""
CADDY = """\
{{
    admin off
    default_bind 127.0.0.1
    http_port {http}
    https_port {https}
}}
"""

Opener = Callable[[Path, str], AbstractAsyncContextManager[str]]


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for the site and its key, and return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "fullchain.pem", folder / "privkey.pem"
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(certificate.public_bytes(pem))
    paths[1].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def replace(text: str, changes: dict[str, str]) -> str:
    """Replace texts that the page must contain."""
    for old, new in changes.items():
        assert old in text, f"the page has no {old!r}"
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def open_nginx(folder: Path, upstream: str) -> AsyncGenerator[str, None]:
    """Run nginx in front of the server at ``upstream``, and yield the URL of its site."""
    http, https = find_port(), find_port()
    certificate, key = write_certificate(folder)
    page = find_block("docs/guides/deploying.md", "proxy_set_header").text
    changes = {
        "127.0.0.1:7860": urlsplit(upstream).netloc,
        "listen 80;": f"listen 127.0.0.1:{http};",
        "listen 443 ": f"listen 127.0.0.1:{https} ",
        f"/etc/letsencrypt/live/{HOST}/fullchain.pem": str(certificate),
        f"/etc/letsencrypt/live/{HOST}/privkey.pem": str(key),
    }
    (folder / "voice.conf").write_text(replace(page, changes))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    async with run_proxy(command, folder, https):
        yield f"https://{HOST}:{https}"


@asynccontextmanager
async def open_caddy(folder: Path, upstream: str) -> AsyncGenerator[str, None]:
    """Run Caddy in front of the server at ``upstream``, and yield the URL of its site."""
    http, https = find_port(), find_port()
    certificate, key = write_certificate(folder)
    page = find_block("docs/guides/deploying.md", "reverse_proxy").text
    changes = {
        "127.0.0.1:7860": urlsplit(upstream).netloc,
        f"{HOST} {{\n": f"{HOST} {{\n    tls {certificate} {key}\n",
    }
    options = CADDY.format(http=http, https=https)
    config = folder / "Caddyfile"
    config.write_text(options + replace(page, changes))
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)]
    async with run_proxy(command, folder, https):
        yield f"https://{HOST}:{https}"


PROXIES: dict[str, Opener] = {"nginx": open_nginx, "caddy": open_caddy}


@asynccontextmanager
async def run_proxy(command: list[str], folder: Path, port: int) -> AsyncGenerator[None, None]:
    """Run a program until it listens; fail if it is not installed."""
    # Debian's nginx is not on the PATH of users.
    program = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin")
    if program is None:
        pytest.fail(f"{command[0]} is missing: apt-get install {command[0]}", pytrace=False)
    # Caddy keeps its configuration and certificates there.
    variables = {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    async with await anyio.open_process(
        [program, *command[1:]], stdout=None, stderr=None, env=os.environ | variables
    ) as process:
        try:
            await wait_until(
                lambda: process.returncode is not None or not is_free(port), command[0]
            )
            assert process.returncode is None, f"{command[0]} has ended"
            yield
        finally:
            process.terminate()
