"""The Ray cluster that a run uses: one on this machine, or one that is joined."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import ray

from pipelines.config import RunConfig
from samtok_data.errors import SetupError

logger = logging.getLogger(__name__)

# Processes that read and write for each GPU: the most where nothing else is asked for, as one encoder cannot take more
# than so many bring, and how many where no node with a GPU is there yet that could be asked for its cores.
# Measured: eight feed an H100 with pictures of 1500x2250; more would only hold more units open.
_MOST_FEEDERS = 8
_FEEDERS_UNSEEN = 3

_COLOUR = re.compile(r"\x1b\[\d+m")
# What Ray puts before each line of a process that is no part of the cluster itself.
_PREFIX = re.compile(r"\((?P<kind>\w+) pid=\d+[^)]*\) ?")


@contextlib.contextmanager
def ray_session(shown: tuple[str, ...] = ()) -> Iterator[None]:
    """Leaves the cluster that was started or joined meanwhile; Ray's long notices are shortened.

    Args:
        shown: kinds of processes whose lines are shown, as Ray calls them; others print to Ray's log files only.
    """
    was_running = ray.is_initialized()
    out: Any = _ShortNotices(sys.stdout, shown)
    err: Any = _ShortNotices(sys.stderr, shown)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            if not was_running:
                ray.shutdown()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The actors that a run asks for.

    Attributes:
        crews: for each actor that holds a tokenizer the number of its feeders, which run units for it; 0: it runs units
            itself.
        share: GPUs of each that holds a tokenizer.
        cpus: that every actor holds.
    """

    crews: tuple[int, ...]
    share: float
    cpus: float = 1.0


def joins(config: RunConfig) -> bool:
    """Whether a run belongs to a cluster that is there already; else it starts one on this machine."""
    return _address(config) is not None or ray.is_initialized()


def gpu_share(config: RunConfig, *, is_joined: bool) -> float:
    """GPUs that each actor holds; 0 where the actors compute on CPUs. Joins the cluster if that must be asked.

    Args:
        config: the settings.
        is_joined: as ``joins`` found it.

    Raises:
        SetupError: the settings ask for what only GPUs have, or the cluster does not answer.
    """
    if config.num_gpus_per_actor is not None:
        share = config.num_gpus_per_actor
    elif is_joined:
        start_cluster(config)
        share = 1.0 if ray.cluster_resources().get("GPU") else 0.0
    else:
        import torch

        share = 1.0 if torch.cuda.is_available() else 0.0
    if config.precision in ("fp16", "bf16") and not share:
        raise SetupError(f"--precision {config.precision} needs a GPU; leave it away to run in fp32 on CPUs")
    if config.feeders is not None and not share:
        raise SetupError("--feeders is for runs on GPUs; on CPUs --actors says how many processes there are")
    return share


def start_cluster(config: RunConfig, share: float = 0.0) -> None:
    """Joins the cluster of the settings, or starts one here; nothing happens where the process is in one already.

    Args:
        config: the settings.
        share: GPUs of each actor.

    Raises:
        SetupError: nothing answers at the address.
    """
    # Room for the actors that were asked for, even on fewer cores; else Ray counts the cores itself.
    join_cluster(config.address, num_cpus=None if share else config.actors)


def join_cluster(address: str | None, *, num_cpus: int | None = None, with_output: bool = False) -> None:
    """Joins a cluster, or starts one on this machine; nothing happens where the process is in one already.

    Args:
        address: of the cluster; None: what RAY_ADDRESS names, else one is started.
        num_cpus: that a cluster on this machine has to give; None: its cores.
        with_output: whether what workers print is shown here.

    Raises:
        SetupError: nothing answers at the address.
    """
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": with_output}
    if address is None:
        ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **quiet)
        return
    try:
        _knock(address)
        ray.init(address=address, **quiet)
    except (OSError, ValueError) as error:
        raise SetupError(
            f"--address {address}: no Ray cluster can be joined there; start one with 'ray start --head' (and give "
            "both sides the same token, or RAY_AUTH_MODE=disabled), or leave --address away to run on this machine"
        ) from error


def plan_crews(config: RunConfig, share: float, units: int) -> Layout:
    """Which actors to ask for: where there are GPUs crews of an encoder and its feeders, else actors on CPUs.

    Args:
        config: may say how many.
        share: GPUs of each that holds a tokenizer.
        units: more actors than that would idle.

    Raises:
        SetupError: the cluster has no GPU, and no autoscaler could bring one.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = [_shares(node, share) for node in nodes]
    if share and not sum(shares) and _address(config) is None:
        gpus = sum(node.get("GPU", 0.0) for node in nodes)
        found = f"only {gpus:g} of them; give fewer, or" if gpus else "no GPU; give"
        raise SetupError(f"--num-gpus-per-actor {share:g}: this machine has {found} 0 to run on CPUs")
    wanted = min(config.actors or max(1, sum(shares)), units)
    if wanted > sum(shares):
        logger.warning(
            "The cluster has room for %d of %d actors now; the others join when it grows.", sum(shares), wanted
        )
    if not share:
        return Layout(crews=(0,) * wanted, share=0.0)
    cores = min(
        (node.get("CPU", 1.0) / number for node, number in zip(nodes, shares, strict=True) if number), default=None
    )
    feeders = config.feeders or _usual_feeders(cores)
    # So that a crew has room beside its GPU however many feeders were asked for.
    cpus = 1.0 if cores is None else min(1.0, math.floor(1e4 * cores / (1 + feeders)) / 1e4)
    crews = tuple(min(feeders, len(range(crew, units, wanted))) for crew in range(wanted))
    return Layout(crews=crews, share=share, cpus=cpus)


def _shares(node: Mapping[str, float], share: float) -> int:
    """Actors that a node has room for: by its GPUs, or by its cores where they hold none."""
    return int(node.get("GPU", 0.0) / share + 1e-6) if share else int(node.get("CPU", 0.0))


def _usual_feeders(cores: float | None) -> int:
    """Of each encoder that has so many cores of its node to itself and its feeders; None: no such node is there."""
    return _FEEDERS_UNSEEN if cores is None else max(1, min(_MOST_FEEDERS, int(cores) - 1))


def _address(config: RunConfig) -> str | None:
    """Of the cluster to join; RAY_ADDRESS names it inside a Ray job."""
    return config.address or os.environ.get("RAY_ADDRESS")


def _knock(address: str) -> None:
    """Fails where nothing listens at ``host:port``: Ray would end the whole process without an exception."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "//" not in address:
        socket.create_connection((host, int(port)), timeout=10).close()


class _ShortNotices:
    """Passes a stream on, except what Ray prints of its processes: lines of those that are shown lose their prefix,
    others are dropped; of the cluster's own paragraphs the first sentence is logged, once."""

    def __init__(self, stream: TextIO, shown: tuple[str, ...]) -> None:
        self._stream, self._shown = stream, shown
        self._seen: set[str] = set()
        self._is_end_left = False

    def write(self, text: str) -> int:
        plain = _COLOUR.sub("", text)
        prefix = _PREFIX.match(plain)
        if prefix is not None:
            if prefix["kind"] in self._shown:
                self._stream.write(plain.removeprefix(prefix[0]))
            else:
                self._is_end_left = not text.endswith("\n")
            return len(text)
        if self._is_end_left and text == "\n":  # of a line that was dropped
            self._is_end_left = False
            return len(text)
        if "(raylet)" not in plain:
            return self._stream.write(text)
        self._is_end_left = not text.endswith("\n")
        first = plain.strip().removeprefix("(raylet) ").partition(". ")[0]
        if first not in self._seen and "ray.kill" not in plain:  # that one is the run's own doing
            self._seen.add(first)
            logger.warning("Ray: %s", first[:200])
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
