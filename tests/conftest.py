"""What every test shares: the real samples, and a check that nothing is left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real source files that SAMTOK_SAMPLES names."""
    folder = os.environ.get("SAMTOK_SAMPLES")
    if not folder:
        pytest.skip("SAMTOK_SAMPLES does not name the folder of real source files")
    return Path(folder)


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a temporary file of ``Folder.write``, or a thread that loads images."""
    # Asked for here, so that the folder is still there when this fixture ends.
    folder: Path | None = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("images")]
    for thread in threads:
        thread.join(timeout=5)
    assert [thread.name for thread in threads if thread.is_alive()] == []
    if folder is not None:
        assert [str(path) for path in folder.rglob(".tmp/*")] == []
