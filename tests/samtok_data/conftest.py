"""Output folders on the three kinds of file system: a local disk, memory, and an S3 server on the loopback."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from samtok_data.storage import Folder

BUCKET = "samtok-tests"
_NUMBERS = itertools.count()


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


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest) -> Iterator[Folder]:
    """An output folder that does not exist yet, on each kind of file system."""
    number = next(_NUMBERS)
    if request.param == "local":
        tmp_path: Path = request.getfixturevalue("tmp_path")
        yield Folder(tmp_path / "out")
    elif request.param == "memory":
        yield Folder(f"memory://test-{number}/out")
        memory = fsspec.filesystem("memory")
        if memory.exists(f"/test-{number}"):
            memory.rm(f"/test-{number}", recursive=True)
    else:
        request.getfixturevalue("s3_endpoint")
        yield Folder(f"s3://{BUCKET}/test-{number}/out")
