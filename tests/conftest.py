"""What every test shares: the real samples, and a check that nothing is left behind."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

BUCKET = "samtok-tests"


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


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of an S3 server with one empty bucket; the environment leads s3fs and boto3 to it."""
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        S3FileSystem().mkdir(BUCKET)
        yield os.environ["AWS_ENDPOINT_URL"]
    S3FileSystem.clear_instance_cache()
    server.stop()
