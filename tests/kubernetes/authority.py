"""Make a certificate authority for tests with openssl."""

import base64
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and the certificates that it signed for a server and an administrator."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """The path of the authority's certificate."""
        return self.folder / "ca.crt"

    def context(self) -> ssl.SSLContext:
        """Return the TLS context of a server that accepts client certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        context.load_verify_locations(self.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def base64(self, name: str) -> str:
        """Return a file in the base64 form that kubeconfigs use."""
        return base64.b64encode((self.folder / name).read_bytes()).decode()


def make_authority(folder: Path, *addresses: str) -> Authority:
    """Make an authority, and a certificate for a server at some addresses, unless the folder already has them."""
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
