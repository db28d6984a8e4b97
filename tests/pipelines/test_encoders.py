"""Encoders and their feeders, on CPUs: the same bytes however many there are and whichever of them die."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image
from ray import cloudpickle
from ray.util.placement_group import placement_group_table

from pipelines import actors, run
from pipelines.cluster import Layout, plan_crews
from pipelines.config import RunConfig
from pipelines.encoders import EncoderActor, RemoteTokenizer, TokenizerOrder
from pipelines.run import Summary, tokenize
from pipelines.work import Job, Tokenizer, software
from samtok_data import masks
from samtok_data.errors import SetupError
from samtok_data.masks import RLE
from samtok_data.outputs import UnitEntry
from tests.pipelines.conftest import config_of, digests
from tokenizer_model import TokenizerIdentity, identify_tokenizer, open_tokenizer


def layout_of(*crews: int) -> Layout:
    """Crews on CPUs; several have room in the tests' cluster."""
    return Layout(crews=crews, share=0.0, cpus=0.25)


def tokenize_with(layout: Layout, config: RunConfig, patch: pytest.MonkeyPatch) -> Summary:
    patch.setattr(run, "plan_crews", lambda *_: layout)
    return tokenize(config)


@pytest.fixture(scope="session")
def identity() -> TokenizerIdentity:
    return identify_tokenizer("small")


@pytest.fixture
def order(identity: TokenizerIdentity) -> TokenizerOrder:
    return TokenizerOrder(spec="small", sha256=identity.sha256, precision="fp32", device="cpu", software=software())


# --- how many --------------------------------------------------------------------------------------------------------


NODE = {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 1.0}}
LARGE = {"Alive": True, "Resources": {"CPU": 128.0, "GPU": 8.0}}
NARROW = {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}}
ONE_CORE = {"Alive": True, "Resources": {"CPU": 1.0, "GPU": 1.0}}
WIDE = {"Alive": True, "Resources": {"CPU": 96.0, "GPU": 1.0}}
FEW = {"Alive": True, "Resources": {"CPU": 6.0, "GPU": 1.0}}
GONE = {"Alive": False, "Resources": {}}
HEAD = {"Alive": True, "Resources": {"CPU": 4.0}}


@pytest.mark.parametrize(
    ("nodes", "share", "units", "settings", "layout"),
    [
        pytest.param([NODE], 1.0, 100, {}, Layout(crews=(8,), share=1.0), id="sixteen cores"),
        pytest.param([LARGE], 1.0, 999, {}, Layout(crews=(8,) * 8, share=1.0), id="eight GPUs share the cores"),
        pytest.param([FEW], 1.0, 100, {}, Layout(crews=(5,), share=1.0), id="a core is the encoder's"),
        pytest.param([WIDE], 1.0, 100, {}, Layout(crews=(8,), share=1.0), id="eight at most"),
        pytest.param([WIDE], 1.0, 100, {"feeders": 20}, Layout(crews=(20,), share=1.0), id="unless asked for"),
        pytest.param([NODE], 0.5, 100, {}, Layout(crews=(7, 7), share=0.5), id="two on a GPU"),
        pytest.param([NODE], 0.1, 100, {"actors": 3}, Layout(crews=(1, 1, 1), share=0.1, cpus=0.8), id="many on a GPU"),
        pytest.param([HEAD, GONE, NODE, NARROW], 1.0, 9, {}, Layout(crews=(1, 1), share=1.0), id="fit every node"),
        pytest.param([ONE_CORE], 1.0, 9, {}, Layout(crews=(1,), share=1.0, cpus=0.5), id="one core"),
        pytest.param([NARROW], 1.0, 9, {"feeders": 5}, Layout(crews=(5,), share=1.0, cpus=0.3333), id="two cores"),
        pytest.param([LARGE], 1.0, 10, {}, Layout(crews=(2, 2, 1, 1, 1, 1, 1, 1), share=1.0), id="few units"),
        pytest.param([LARGE], 1.0, 3, {}, Layout(crews=(1, 1, 1), share=1.0), id="fewer units than GPUs"),
        pytest.param([HEAD], 1.0, 99, {"address": "auto"}, Layout(crews=(3,), share=1.0), id="no GPU there yet"),
        pytest.param([HEAD], 0.0, 99, {}, Layout(crews=(0, 0, 0, 0), share=0.0), id="CPUs"),
        pytest.param([HEAD, NODE], 0.0, 3, {}, Layout(crews=(0, 0, 0), share=0.0), id="CPUs, few units"),
    ],
)  # fmt: skip
def test_crews_fill_the_nodes_that_are_there(
    monkeypatch: pytest.MonkeyPatch, nodes: list[Any], share: float, units: int, settings: Any, layout: Layout
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    config = RunConfig(dataset="gres", root="in", out="out", **settings)
    found = plan_crews(config, share, units)
    assert found == layout
    assert sum(found.crews) <= max(units, len(found.crews))
    for crew in found.crews:
        bundle = found.cpus * (1 + crew)
        assert all(
            node["Resources"]["CPU"] >= bundle * int(node["Resources"]["GPU"] / share)
            for node in nodes
            if share and node["Resources"].get("GPU")
        )


def test_fewer_gpus_than_asked_for_are_a_setup_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [NODE])
    config = RunConfig(dataset="gres", root="in", out="out")
    with pytest.raises(SetupError, match="--num-gpus-per-actor 2: this machine has only 1 of them; give fewer, or 0"):
        plan_crews(config, 2.0, 9)


def test_feeders_without_gpus_are_a_setup_error(cluster: None, bundled: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="--feeders is for runs on GPUs; on CPUs --actors says how many"):
        tokenize(config_of(bundled, tmp_path, feeders=2))
    assert not (tmp_path / "gres").exists()


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "crews",
    [
        pytest.param((2,), id="an encoder with two feeders"),
        pytest.param((1,), id="one", marks=pytest.mark.slow),
        pytest.param((3,), id="three", marks=pytest.mark.slow),
        pytest.param((1, 1), id="two encoders", marks=pytest.mark.slow),
        pytest.param((3, 2), id="two with five", marks=pytest.mark.slow),
    ],
)
def test_the_bytes_are_those_of_a_run_without_encoders(
    reference: tuple[Path, Summary],
    bundled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    crews: tuple[int, ...],
) -> None:
    summary = tokenize_with(layout_of(*crews), config_of(bundled, tmp_path), monkeypatch)
    assert digests(tmp_path) == digests(reference[0])
    assert summary.splits == reference[1].splits
    assert 1 <= len(summary.encoders) <= len(crews)  # one that was ready too late did nothing
    assert sum(one["images"] for one in summary.encoders) == summary.splits["train"].images
    assert sum(one["masks"] for one in summary.encoders) == summary.splits["train"].masks
    assert all(one["busy_s"] > 0 and one["idle_s"] >= 0 for one in summary.encoders)


MARK = Path()
"""A file that remembers that an actor died; set before the actors' classes are pickled, with what they refer to."""


def die_once() -> None:
    if not MARK.exists():
        MARK.touch()
        os.kill(os.getpid(), signal.SIGKILL)


class MortalEncoder(EncoderActor):
    """Dies once, when its second call has come."""

    def encode(self, prepared: Any) -> Any:
        if self.usage()["calls"] >= 1:
            die_once()
        return super().encode(prepared)


class MortalFeeder(actors.UnitActor):
    """Dies once, while its encoder works for it."""

    def run(self, job: Job) -> Any:
        if job.index == 1:
            threading.Timer(0.1, die_once).start()
        return super().run(job)


class DoomedEncoder(EncoderActor):
    """Dies with each call after the first."""

    def encode(self, prepared: Any) -> Any:
        codes = super().encode(prepared)
        if self.usage()["calls"] > 1 or MARK.exists():
            MARK.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return codes


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(sys.modules[__name__], "MARK", tmp_path / "died")
    return tmp_path / "died"


@pytest.mark.parametrize(
    ("name", "mortal"),
    [("EncoderActor", MortalEncoder), pytest.param("UnitActor", MortalFeeder, marks=pytest.mark.slow)],
)
def test_an_encoder_or_a_feeder_that_dies_once_costs_nothing(
    reference: tuple[Path, Summary],
    bundled: Path,
    tmp_path: Path,
    mark: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    mortal: type,
) -> None:
    monkeypatch.setattr(actors, name, mortal)
    tokenize_with(layout_of(2), config_of(bundled, tmp_path / "out"), monkeypatch)
    assert mark.exists()
    assert digests(tmp_path / "out") == digests(reference[0])


@pytest.mark.slow
def test_an_encoder_that_always_dies_ends_the_run_with_its_shards_kept(
    reference: tuple[Path, Summary], bundled: Path, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors, "EncoderActor", DoomedEncoder)
    with pytest.raises(SetupError, match=r"An actor died 4 times at the same work; .* Finished shards are kept"):
        tokenize_with(layout_of(1), config_of(bundled, tmp_path / "out"), monkeypatch)
    assert mark.exists()
    kept = {name: digest for name, digest in digests(tmp_path / "out").items() if name.endswith(".tar")}
    assert len(kept) == 1
    assert kept.items() <= digests(reference[0]).items()


@pytest.mark.slow
def test_crews_that_have_no_room_hold_nothing_up(
    reference: tuple[Path, Summary], bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(crews=(1, 1, 1, 1), share=0.0, cpus=2.0)  # the session's cluster has room for one of them
    tokenize_with(layout, config_of(bundled, tmp_path), monkeypatch)
    assert digests(tmp_path) == digests(reference[0])


# --- one crew --------------------------------------------------------------------------------------------------------


class CuriousFeeder(actors.UnitActor):
    """Says which modules its process has loaded after a unit."""

    def run(self, job: Job) -> Any:
        super().run(job)
        return sorted(sys.modules)


def groups() -> list[str]:
    """States of the placement groups that are not gone."""
    return [group["state"] for group in placement_group_table().values() if group["state"] != "REMOVED"]


def test_feeders_load_no_torch(
    cluster: None, bundled: Path, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []

    class Crews(actors.Crews):
        def run(self, jobs: Any) -> Any:
            loaded.extend(super().run([next(iter(jobs))]))
            raise KeyboardInterrupt

    monkeypatch.setattr(actors, "UnitActor", CuriousFeeder)
    monkeypatch.setattr(run, "Crews", Crews)
    with pytest.raises(KeyboardInterrupt):
        tokenize_with(layout_of(1), config_of(bundled, tmp_path / "out"), monkeypatch)
    (modules,) = loaded
    assert "pipelines.dialogue_units" in modules
    assert {"torch", "sam2", "torchvision"}.isdisjoint(modules)


class Sleeping:
    """Units that take a minute."""

    def run_job(self, job: Job, tokenizer: Tokenizer) -> UnitEntry:
        time.sleep(60)
        raise AssertionError(f"{job} was not stopped, {tokenizer}")


def test_nothing_is_left_of_crews_whose_run_was_stopped(cluster: None, order: TokenizerOrder, mark: Path) -> None:
    def jobs() -> Iterator[Job]:
        yield Job("train", 0, 0, [])  # a feeder sleeps over it when the next is asked for
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), actors.Crews(order, {"train": Sleeping()}, layout_of(2)) as crews:
        list(crews.run(jobs()))
    deadline = time.monotonic() + 20
    while (left := groups()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    while (free := ray.available_resources().get("CPU")) != 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert free == 4


def test_a_crew_that_finds_no_node_says_what_it_needs(
    cluster: None, order: TokenizerOrder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Impatient(actors.Crews):
        def _say_what_is_wanted(self) -> None:
            super()._say_what_is_wanted()
            raise KeyboardInterrupt

    monkeypatch.setattr(actors, "PATIENCE", 0.2)
    layout = Layout(crews=(7, 7), share=1.0)
    with pytest.raises(KeyboardInterrupt), Impatient(order, {}, layout) as crews:
        list(crews.run([Job("train", 0, 0, [])]))
    wanted = "each needs a node with 8 CPUs and 1 GPU free, fewer with a smaller --feeders"
    assert any(wanted in record.getMessage() for record in caplog.records)


# --- one encoder -----------------------------------------------------------------------------------------------------


class LookingEncoder(EncoderActor):
    """Says of the pixels that reach it whether they are its own copy."""

    def encode(self, prepared: Any) -> Any:
        return [one.pixels.flags.owndata or one.pixels.flags.writeable for one in prepared]


def square(side: int) -> RLE:
    mask_HW = np.zeros((48, 64), np.bool_)
    mask_HW[8 : 8 + side, 8 : 8 + side] = True
    return masks.encode(mask_HW)


def some_images() -> list[tuple[Image.Image, list[RLE]]]:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3), np.uint8)
    pictures = [Image.fromarray(one).resize((64, 48)) for one in coarse]
    return [(picture, [square(side) for side in range(4, 6 + place)]) for place, picture in enumerate(pictures)]


@pytest.mark.slow
def test_an_encoder_gives_what_its_tokenizer_gives(cluster: None, order: TokenizerOrder, one_thread: None) -> None:
    options: dict[str, Any] = {"num_cpus": 1, "max_concurrency": 3}
    actor: Any = ray.remote(**options)(EncoderActor)
    encoder = actor.remote(order)
    remote, local = RemoteTokenizer(encoder), open_tokenizer("small")
    assert remote.vocabulary == local.vocabulary
    prepared = [remote.prepare(picture, rles) for picture, rles in some_images()]
    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(remote.measure_prepared, [prepared] * 4))
    codes, ious = local.measure_prepared(prepared)
    for found_codes, found_ious in several:
        assert [one.tolist() for one in found_codes] == [one.tolist() for one in codes]
        assert [one.tolist() for one in found_ious] == [one.tolist() for one in ious]
    assert [one.tolist() for one in remote.encode_prepared(prepared)] == [one.tolist() for one in codes]
    used: Any = ray.get(encoder.usage.remote())
    assert (used["calls"], used["images"], used["masks"]) == (5, 15, 45)
    ray.kill(encoder)


def test_an_encoder_reads_pixels_without_a_copy(cluster: None, order: TokenizerOrder, mark: Path) -> None:
    actor: Any = ray.remote(num_cpus=1)(LookingEncoder)
    encoder = actor.remote(order)
    remote = RemoteTokenizer(encoder)
    prepared = [remote.prepare(picture, rles) for picture, rles in some_images()]
    assert remote.encode_prepared(prepared) == [False, False, False]
    ray.kill(encoder)
