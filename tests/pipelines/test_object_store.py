"""A run from an object store to an object store: the same bytes as on a disk."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from pipelines.run import Summary
from samtok_data.storage import Folder
from tests.conftest import BUCKET


def test_the_bytes_on_s3_are_those_on_disk(reference: tuple[Path, Summary], bundled: Path, s3_endpoint: str) -> None:
    root, out = f"s3://{BUCKET}/bundled", f"s3://{BUCKET}/run"
    for path in bundled.rglob("*"):
        if path.is_file():
            Folder(root).write(str(path.relative_to(bundled)), path.read_bytes())
    command = [sys.executable, "-m", "pipelines.cli", "tokenize", "--dataset", "gres", "--root", root, "--out", out]
    command += ["--tokenizer", "small", "--samples-per-shard", "1", "--num-gpus-per-actor", "0", "--actors", "2"]
    # A process and a Ray of its own: the workers must see the environment that leads to the server.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    for expected in ("8 units in ", "nothing to do: every shard was there"):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    written = Folder(out)
    names = sorted(name for name in written.walk() if not name.endswith("summary.json"))
    assert names == sorted(name for name in Folder(reference[0]).walk() if not name.endswith("summary.json"))
    assert len([name for name in names if name.endswith(".tar")]) == 8
    for name in names:
        assert (
            hashlib.sha256(written.read(name)).digest() == hashlib.sha256((reference[0] / name).read_bytes()).digest()
        )
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "verify", out],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
