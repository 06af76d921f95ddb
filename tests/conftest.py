import os
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
