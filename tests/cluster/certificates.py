"""The certificates of the cluster, and the kubeconfig files made of them."""

import base64
import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=3650)
# Clocks of virtual machines jump back a little when they resume.
CLOCK_TOLERANCE = datetime.timedelta(hours=1)


class Authority:
    """A certificate authority whose files live in one folder; existing files are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.certificate = folder / "ca.crt"
        self.key = folder / "ca.key"
        if not self.certificate.exists():
            self._create()

    def issue(
        self, name: str, common_name: str, *, groups: Sequence[str] = (), hosts: Sequence[str] = ()
    ) -> tuple[Path, Path]:
        """A certificate and its key: a server's if `hosts` are given, else a client's."""
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        if certificate.exists():
            return certificate, key
        issuer = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        issuer_key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
        private = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _unsigned(subject, issuer.subject, private)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_authority_identifier(issuer_key), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        _write_key(key, private)
        # the certificate last: it is what says that both are there
        _write(certificate, _pem(builder.sign(issuer_key, hashes.SHA256())))
        return certificate, key

    def signing_key(self, name: str) -> Path:
        """A bare private key; Kubernetes signs service account tokens with it."""
        key = self.folder / f"{name}.key"
        if not key.exists():
            _write_key(key, ec.generate_private_key(ec.SECP256R1()))
        return key

    def _create(self) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "falco-talon test cluster")])
        # Python 3.13 verifies strictly: a CA must state its key usage and key identifiers
        builder = (
            _unsigned(subject, subject, private)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(_authority_identifier(private), critical=False)
        )
        _write_key(self.key, private)
        _write(self.certificate, _pem(builder.sign(private, hashes.SHA256())))


def write_client_kubeconfig(
    path: Path, server: str, authority: Authority, client: tuple[Path, Path]
) -> Path:
    """A kubeconfig that stands alone, for a client with a certificate."""
    certificate, key = client
    user = {
        "client-certificate-data": _base64(certificate.read_bytes()),
        "client-key-data": _base64(key.read_bytes()),
    }
    cluster = {
        "server": server,
        "certificate-authority-data": _base64(authority.certificate.read_bytes()),
    }
    return write_kubeconfig(path, cluster, user)


def write_kubeconfig(
    path: Path, cluster: dict[str, Any], user: dict[str, Any], namespace: str = "default"
) -> Path:
    """A kubeconfig with one context, readable by its owner alone."""
    name = "talon-test"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}
        ],
        "current-context": name,
    }
    _write(path, yaml.safe_dump(content).encode())
    return path


def _unsigned(
    subject: x509.Name, issuer: x509.Name, private: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_TOLERANCE)
        .not_valid_after(now + LIFETIME)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False
        )
    )


def _authority_identifier(issuer: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, private: ec.EllipticCurvePrivateKey) -> None:
    content = private.private_bytes(
        serialization.Encoding.PEM,
        # the API server derives the public key from this format only
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    _write(path, content)


def _write(path: Path, content: bytes) -> None:
    """Write in one step, so that a crash leaves no half of a file for the next run to trust."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
