"""A certificate authority for tests, made with openssl."""

import base64
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and the certificates of a server and of an administrator that it signed."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """Of the authority."""
        return self.folder / "ca.crt"

    def context(self) -> ssl.SSLContext:
        """Return the server's side of TLS, which takes clients' certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        context.load_verify_locations(self.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def base64(self, name: str) -> str:
        """Return a file as kubeconfigs hold it."""
        return base64.b64encode((self.folder / name).read_bytes()).decode()


def make_authority(folder: Path, *addresses: str) -> Authority:
    """Make an authority with openssl, and a certificate for a server at some addresses; once for each folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "client.crt").exists():
        return Authority(folder)
    names = ",".join(["DNS:localhost", "DNS:kubernetes", *(f"IP:{address}" for address in addresses)])
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    openssl = ["openssl", "req", "-x509", *key]
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", f"subjectAltName={names}"]
    not_ca = ["-addext", "basicConstraints=critical,CA:FALSE"]
    for command in (
        [*openssl, "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt"],
        [*openssl, "-subj", "/CN=kubernetes", "-keyout", "server.key", "-out", "server.crt", *signed, *not_ca],
        [*openssl, "-subj", "/CN=admin", "-keyout", "client.key", "-out", "client.crt", *signed[:4], *not_ca],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    return Authority(folder)
