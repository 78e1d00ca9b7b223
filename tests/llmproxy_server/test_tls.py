"""What is said of the files of a certificate before anybody is served with them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from llmproxy_server.tls import tls_context, tls_problem

OPENSSL = shutil.which("openssl") or "openssl"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two certificates and their keys, the first key once more under a passphrase, and no PEM file."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("a", "b"):
        made = [OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        run([*made, "-keyout", f"{name}.key", "-out", f"{name}.crt"], folder)
    run([OPENSSL, "rsa", "-aes128", "-passout", "pass:word", "-in", "a.key", "-out", "locked.key"], folder)
    (folder / "text").write_text("this is no PEM file\n")
    return folder


def run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)


def test_a_certificate_and_its_key_will_do(files: Path) -> None:
    assert tls_problem(str(files / "a.crt"), str(files / "a.key")) is None
    assert tls_context(None, None) is None


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("a.crt", "b.key", "server.tls_key: expected the private key of tls_certificate, got another one"),
        ("a.crt", "text", "server.tls_key: expected a PEM file with a private key"),
        ("text", "a.key", "server.tls_certificate: expected a PEM file with a certificate"),
        ("a.key", "a.key", "server.tls_certificate: expected a PEM file with a certificate"),
        ("a.crt", "none", "server.tls_key: cannot be read: No such file or directory"),
        ("none", "a.key", "server.tls_certificate: cannot be read: No such file or directory"),
    ],
)
def test_files_that_will_not_do_are_told_apart(files: Path, certificate: str, key: str, message: str) -> None:
    assert str(tls_problem(str(files / certificate), str(files / key))) == message


def test_nobody_is_asked_for_a_passphrase(files: Path) -> None:
    """OpenSSL would ask on the terminal, and a server would stand there for ever."""
    problem = tls_problem(str(files / "a.crt"), str(files / "locked.key"))

    assert str(problem).startswith("server.tls_key: expected a private key without a passphrase")
