"""An HTTPS server whose handshakes take as long as a test wants: what a cold connection costs before its request."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

#: Seconds anything in here may take before a test fails.
LIMIT = 20.0


class TlsServer:
    """Answers every request with `{"name": "x"}`. `certificate` is the file that a client has to trust.

    `handshake`: called before the handshake of each connection. `arrivals`: when the last byte of each request came
    (monotonic seconds). `drop`: closes the connections that are open. `drip_seconds`: between two bytes of an answer.
    """

    def __init__(self, directory: Path) -> None:
        self.certificate = directory / "certificate.pem"
        key = directory / "key.pem"
        _write_certificate(self.certificate, key)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(self.certificate, key)
        self.handshake_seconds = 0.0
        self.drip_seconds = 0.0
        self.let_through = threading.Event()
        self.let_through.set()
        self.connections = 0
        self.arrivals: list[float] = []
        self._stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(0.01)
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self._stopping.set()
        self._listener.close()
        self.drop()

    def most_in_a_second(self) -> int:
        arrivals = sorted(self.arrivals)
        return max(sum(first <= at < first + 1.0 for at in arrivals) for first in arrivals)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(LIMIT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.let_through.wait(LIMIT)
        self._stopping.wait(self.handshake_seconds)
        try:
            with self._tls.wrap_socket(plain, server_side=True) as connection:
                self._open.add(connection)
                self._answer(connection)
        except OSError:
            pass

    def _answer(self, connection: ssl.SSLSocket) -> None:
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
            if received.endswith(b"\r\n\r\n"):
                self.arrivals.append(time.monotonic())
                received = b""
                self._send(connection, b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"name":"x"}')

    def _send(self, connection: ssl.SSLSocket, answer: bytes) -> None:
        step = 1 if self.drip_seconds else len(answer)
        for start in range(0, len(answer), step):
            connection.sendall(answer[start : start + step])
            self._stopping.wait(self.drip_seconds)


def _write_certificate(certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
