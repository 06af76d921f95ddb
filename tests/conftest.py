import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real CT and MRI for development; never part of the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PROMPTSEG_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set PROMPTSEG_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A real PACS on loopback."""
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    from pacs_kit import running_orthanc

    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as one:
        yield one


@pytest.fixture
def signed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials that `orthanc` wants."""
    from pacs_kit import PASSWORD, USER

    monkeypatch.setenv("PROMPTSEG_PACS_USER", USER)
    monkeypatch.setenv("PROMPTSEG_PACS_PASSWORD", PASSWORD)


@pytest.fixture(scope="module")
def browser():
    """One browser for the tests of a module."""
    from browser_kit import launched_browser

    with launched_browser() as browser:
        yield browser
