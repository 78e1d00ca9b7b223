"""Serving over TLS: the context, and what is wrong with the files that it is made of."""

from __future__ import annotations

import os
import ssl
from hashlib import sha256
from pathlib import Path

from llmproxy_core.errors import Problem


class EncryptedKey(ssl.SSLError):
    """The key wants a passphrase, and nobody is there to be asked."""


def tls_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """For serving with the PEM files given; None without. OSError, as ssl.SSLError is, when they will not do."""
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key, password=_refuse)
    context.set_alpn_protocols(["http/1.1"])
    return context


def tls_digest(certificate: str | None, key: str | None) -> bytes:
    """Another one when the content of a file is another: a renewed certificate has the same name. OSError."""
    files = [Path(file).read_bytes() for file in (certificate, key) if file is not None]
    return b"".join(sha256(content).digest() for content in files)


def _refuse() -> str:
    """Instead of OpenSSL's question on the terminal, which would stop a server for ever."""
    raise EncryptedKey(1, "the private key is encrypted")


def tls_problem(certificate: str | None, key: str | None) -> Problem | None:
    """What is wrong with the files, for the one who wrote their names; None when they will do."""
    try:
        tls_context(certificate, key)
    except EncryptedKey:
        return Problem("server.tls_key", "expected a private key without a passphrase: nobody is there to type it")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return Problem("server.tls_key", "expected the private key of tls_certificate, got another one")
        if not _is_certificate(certificate):
            return Problem("server.tls_certificate", "expected a PEM file with a certificate")
        return Problem("server.tls_key", "expected a PEM file with a private key")
    except OSError as error:
        # OpenSSL does not tell which of the two it could not read.
        name = "tls_key" if certificate is not None and os.access(certificate, os.R_OK) else "tls_certificate"
        return Problem(f"server.{name}", f"cannot be read: {error.strerror}")
    return None


def _is_certificate(file: str | None) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(file)
    except ssl.SSLError:
        return False
    return True
