"""A cluster whose nodes come and go, on this machine: crews wait for a node, and outlive the one they were on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipelines.run import Summary
from tests.pipelines.conftest import digests

# In a process of its own: there may be one cluster in each. GPUs are numbers to Ray; the encoder computes on the CPU.
PROGRAM = textwrap.dedent("""
    import json, logging, sys, threading, time
    from pathlib import Path
    import ray
    from ray.cluster_utils import Cluster
    from pipelines import run
    from pipelines.cluster import plan_crews
    from tests.pipelines.conftest import config_of

    bundled, out = map(Path, sys.argv[1:])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    run.plan_crews = lambda config, _share, units: plan_crews(config, 1.0, units)
    summaries = []

    def tokenize():
        summaries.append(run.tokenize(config_of(bundled, out, actors=1, address=cluster.address)))

    thread = threading.Thread(target=tokenize, daemon=True)
    thread.start()
    while not (out / "gres/train/.samtok/run.json").exists():
        time.sleep(0.1)
    time.sleep(2)
    before = len(list(out.glob("gres/train/*.tar")))
    first = cluster.add_node(num_cpus=4, num_gpus=1)
    while len(list(out.glob("gres/train/*.tar"))) < 2:
        time.sleep(0.01)
    cluster.remove_node(first, allow_graceful=False)
    lost = len(list(out.glob("gres/train/*.tar")))
    cluster.add_node(num_cpus=4, num_gpus=1)
    thread.join()
    found = {"before": before, "lost": lost, "samples": summaries[0].splits["train"].samples}
    out.with_suffix(".json").write_text(json.dumps(found))
    ray.shutdown()
    cluster.shutdown()
""")


@pytest.mark.slow
def test_a_crew_waits_for_a_node_and_outlives_it(
    reference: tuple[Path, Summary], bundled: Path, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(bundled), str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["before"] == 0  # nothing was made before there was a node
    assert found["lost"] < 8  # and not all when it was lost
    assert found["samples"] == 67
    assert digests(tmp_path / "out") == digests(reference[0])
