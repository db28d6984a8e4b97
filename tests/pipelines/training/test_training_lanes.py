"""The order in which images are trained on: laws of the lanes, and batches on any number of loader processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest
import torch
from PIL import Image

from pipelines.training.lanes import Lane, LaneState, UnitCache, picture_of, unit_at
from pipelines.training.loader import Batch, LaneDataset, batches
from samtok_data.errors import SetupError
from tests.pipelines.training.runs import RECIPE
from tests.pipelines.training.sources import MadeUpSource
from tokenizer_model.training.recipe import Recipe

Weighted = Sequence[tuple[MadeUpSource, float]]


def lanes_of(
    sources: Weighted, count: int, *, seed: int = 0, states: dict[int, LaneState] | None = None, kept: int = 0
) -> list[Lane[Image.Image]]:
    cache = UnitCache(kept)
    return [
        Lane(number, count, list(sources), seed, (states or {}).get(number, LaneState()), cache, picture_of)
        for number in range(count)
    ]


def names_of(lanes: Sequence[Lane[Image.Image]], rounds: int) -> list[str]:
    """Images that the lanes give in turn."""
    return [lane.next().scene.image for _ in range(rounds) for lane in lanes]


@pytest.mark.parametrize(("units", "count"), [(24, 4), (24, 1), (7, 7), (30, 6)])
def test_all_lanes_together_visit_every_unit_once_and_then_again(units: int, count: int) -> None:
    source = MadeUpSource("a", [1] * units)
    lanes = lanes_of([(source, 1.0)], count)
    for _ in range(3):
        assert sorted(names_of(lanes, units // count)) == sorted(source.names())


def test_passes_that_no_number_of_rounds_fills_are_passes_all_the_same() -> None:
    source = MadeUpSource("a", [1] * 10)
    found = names_of(lanes_of([(source, 1.0)], 4), 5)  # 20 draws: two passes, the border in the middle of a round
    assert Counter(found) == dict.fromkeys(source.names(), 2)


def test_the_images_of_a_unit_come_one_after_the_other_on_its_lane() -> None:
    source = MadeUpSource("a", [3, 5, 2, 4])
    (lane,) = lanes_of([(source, 1.0)], 1)
    found = names_of([lane], 14)
    assert sorted(found) == sorted(source.names())
    order = list(dict.fromkeys(name.rpartition("-")[0] for name in found))
    assert found == [f"{unit}-{place}" for unit in order for place in range(source.units[int(unit[2:])])]
    assert order != sorted(order)


def test_a_permutation_is_followed_by_another() -> None:
    found = [unit_at(position, 50, "0/a") for position in range(150)]
    passes = [found[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(one) == list(range(50)) for one in passes)
    assert len({tuple(one) for one in [*passes, list(range(50))]}) == 4


def test_another_seed_and_another_source_give_another_order() -> None:
    def order(name: str, seed: int) -> list[str]:
        found = names_of(lanes_of([(MadeUpSource(name, [1] * 40), 1.0)], 2, seed=seed), 20)
        return [one.partition("-")[2] for one in found]

    assert order("a", 0) == order("a", 0)
    assert len({tuple(order(name, seed)) for name, seed in (("a", 0), ("a", 1), ("b", 0), ("b", 1))}) == 4


def test_weights_are_respected() -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 5.0}
    lanes = lanes_of([(MadeUpSource(name, [1] * 11), weight) for name, weight in weights.items()], 4)
    draws = 4000
    counts = Counter(name[0] for name in names_of(lanes, draws // 4))
    expected = {name: draws * weight / 8 for name, weight in weights.items()}
    chi_square = sum((counts[name] - expected[name]) ** 2 / expected[name] for name in weights)
    assert chi_square < 13.8  # of two degrees of freedom: passed in 999 of 1000 draws


def test_keys_are_never_repeated() -> None:
    lanes = lanes_of([(MadeUpSource("a", [2, 1]), 1.0)], 3)
    keys = [lane.next().key for _ in range(50) for lane in lanes]
    assert len(set(keys)) == 150


@pytest.mark.parametrize("rounds", [1, 4, 5, 13])
def test_a_lane_goes_on_from_its_state_in_the_middle_of_a_unit(rounds: int) -> None:
    sources = [
        (MadeUpSource("a", [9, 4, 6], missing=frozenset({"a-0-1", "a-2-3"})), 2.0),
        (MadeUpSource("b", [1] * 5, broken=frozenset({"b-2-0"})), 1.0),
    ]
    whole = lanes_of(sources, 2)
    names_of(whole, rounds)
    states = {lane.number: LaneState.from_json(lane.state.json) for lane in whole}
    resumed = lanes_of(sources, 2, states=states)
    for _ in range(20):
        for one, other in zip(whole, resumed, strict=True):
            expected, found = one.next(), other.next()
            assert (found.scene, found.key, found.rejects) == (expected.scene, expected.key, expected.rejects)
            assert found.picture.tobytes() == expected.picture.tobytes()
            assert other.state == one.state


def test_what_cannot_be_used_is_told_of_once_in_a_run() -> None:
    source = MadeUpSource("a", [3] * 8, broken=frozenset({"a-1-0", "a-5-2"}), missing=frozenset({"a-3-1"}))
    lanes = lanes_of([(source, 1.0)], 4)
    told = [reject for _ in range(30) for lane in lanes for reject in lane.next().rejects]
    assert sorted((reject.key, reject.reason) for reject in told) == [
        ("a/a-1-0", "mask-invalid"),
        ("a/a-3-1", "image-missing"),
        ("a/a-5-2", "mask-invalid"),
    ]


@pytest.mark.parametrize("kept", [3, 8, 100])
def test_units_that_are_kept_change_nothing(kept: int) -> None:
    sources = [
        (MadeUpSource("a", [1] * 8, missing=frozenset({"a-3-0"}), broken=frozenset({"a-5-0"})), 1.0),
        (MadeUpSource("b", [4, 2]), 1.0),
    ]
    plain, caching = lanes_of(sources, 2), lanes_of(sources, 2, kept=kept)
    for _ in range(40):
        for one, other in zip(plain, caching, strict=True):
            expected, found = one.next(), other.next()
            assert (found.scene, found.key, found.rejects) == (expected.scene, expected.key, expected.rejects)
            assert found.picture.tobytes() == expected.picture.tobytes()


def test_a_source_without_a_usable_image_is_refused() -> None:
    source = MadeUpSource("a", [1, 2], broken=frozenset({"a-0-0", "a-1-0"}), missing=frozenset({"a-1-1"}))
    (lane,) = lanes_of([(source, 1.0)], 1)
    with pytest.raises(SetupError, match=r"^source a: no image with a usable mask in "):
        lane.next()


@pytest.mark.parametrize("seed", range(6))
def test_one_usable_unit_among_broken_ones_is_found_by_every_lane(seed: int) -> None:
    source = MadeUpSource("a", [1] * 8, broken=frozenset(f"a-{unit}-0" for unit in range(7)))
    lanes = lanes_of([(source, 1.0)], 8, seed=seed)
    assert names_of(lanes, 4) == ["a-7-0"] * 32


RECIPE_OF_FOUR = Recipe.from_json({**RECIPE, "batch": 16})  # four images a step
SOURCES: Weighted = [
    (MadeUpSource("a", [7, 5, 6], missing=frozenset({"a-0-3"})), 2.0),
    (MadeUpSource("b", [1] * 9, broken=frozenset({"b-4-0"})), 1.0),
]


def some_batches(processes: int, steps: int, states: dict[int, LaneState] | None = None) -> list[Batch]:
    dataset = LaneDataset(SOURCES, RECIPE_OF_FOUR, lanes=range(4), states=states or {}, kept_images=0)
    found = batches(dataset, lanes=4, processes=processes, device=torch.device("cpu"))
    return list(islice(found, steps))


def assert_equal_batches(found: Sequence[Batch], expected: Sequence[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.images, one.lanes, one.rejects) == (other.images, other.lanes, other.rejects)
        tensors = {name for name, value in _fields(other).items() if isinstance(value, torch.Tensor)}
        assert {"pixels", "prompts", "targets", "boxes", "owners"} <= tensors
        for name in tensors:
            assert torch.equal(getattr(one.examples, name), getattr(other.examples, name)), name


def _fields(batch: Batch) -> dict[str, Any]:
    return {name: getattr(batch.examples, name) for name in batch.examples.__dataclass_fields__}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines of fewer cores
@pytest.mark.parametrize("processes", [1, 3, 9])
def test_batches_do_not_depend_on_the_number_of_loader_processes(processes: int) -> None:
    assert_equal_batches(some_batches(processes, 6), some_batches(0, 6))


def test_a_resumed_run_reads_on_with_another_number_of_processes() -> None:
    whole = some_batches(0, 9)
    assert_equal_batches(some_batches(2, 4, states=dict(whole[4].lanes)), whole[5:])


def test_two_workers_read_what_one_reads() -> None:
    whole = some_batches(0, 5)
    for mine in (range(2), range(2, 4)):
        dataset = LaneDataset(SOURCES, RECIPE_OF_FOUR, lanes=mine, states={}, kept_images=0)
        found = list(islice(batches(dataset, lanes=2, processes=0, device=torch.device("cpu")), 5))
        assert [batch.images for batch in found] == [batch.images[mine.start : mine.stop] for batch in whole]


@pytest.mark.parametrize("processes", [0, 2])
def test_a_source_without_masks_ends_the_batches_with_its_sentence(processes: int) -> None:
    source = MadeUpSource("empty", [1], broken=frozenset({"empty-0-0"}))
    dataset = LaneDataset([(source, 1.0)], RECIPE_OF_FOUR, lanes=range(4), states={}, kept_images=0)
    with pytest.raises(SetupError, match=r"^source empty: no image with a usable mask in 41 units in a row$"):
        next(batches(dataset, lanes=4, processes=processes, device=torch.device("cpu")))
