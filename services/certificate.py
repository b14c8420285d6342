"""The certificate of the gateway, for https without a proxy: looked at before anything starts."""

from __future__ import annotations

import ssl

from stereospot import errors
from stereospot.settings import Settings


def check(settings: Settings) -> None:
    """Raise CERTIFICATE_UNUSABLE unless the certificate and the key that are set belong together. Blocking."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        given, missing = ("key", "certificate") if certificate is None else ("certificate", "key")
        raise errors.error("CERTIFICATE_UNUSABLE", f"There is a {given}, but no {missing} (tls_{missing}).")
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as problem:
            raise errors.error("CERTIFICATE_UNUSABLE", f"{path}: {problem.strerror}.") from problem
    try:
        # Without a password: asked for one, OpenSSL would wait at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as problem:
        reason = problem.reason if isinstance(problem, ssl.SSLError) and problem.reason else str(problem)
        raise errors.error(
            "CERTIFICATE_UNUSABLE", f"{certificate} with {key}: {reason.lower().replace('_', ' ')}."
        ) from problem
