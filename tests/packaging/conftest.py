"""The wheel, built once, and a new environment that holds nothing but what it asks for."""

import re
import sys
from pathlib import Path

import pytest

from tests.packaging.installation import ROOT, Installation, install


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    install(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT)
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel with what its metadata asks for, as a user installs it; the lock only fixes the versions."""
    import uv  # here, since the environments that run the other tests do without it

    directory = tmp_path_factory.mktemp("elsewhere")
    environment = tmp_path_factory.mktemp("environment") / "venv"
    lock = ROOT / "requirements" / "run.txt"
    install(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    install(uv.find_uv_bin(), "pip", "install", "--python", python, "--constraint", lock, wheel)
    return Installation(python=python, directory=directory)


@pytest.fixture(scope="session")
def made_up_keys() -> dict[str, str]:
    """A value for every provider key of .env.example, since the packaged example may ask for any."""
    names = re.findall(r"^# (\w+_API_KEY)=$", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    assert names
    return dict.fromkeys(names, "made-up-key")
