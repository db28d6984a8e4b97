"""Triton's interpreter runs kernels on a CPU. It is chosen when triton is imported, so in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def found_by(script: str, *arguments: str) -> Any:
    """What a script beside this file prints as JSON; a warning fails it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", HERE / script, *arguments],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
