"""MeViS, and with it the scheme that ReVOS shares: expressions, masks by annotation and frame, frames in folders."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.masks.registry import open_mask_source
from converters.masks.source import MaskedImage, MaskSource
from samtok_data import masks
from samtok_data.errors import RecordError, SetupError
from samtok_data.storage import Folder
from tests.converters.mask_sources import HEIGHT, WIDTH, areas, columns, photograph, read_all, reasons
from tests.converters.video_sources import NOTHING, described, expressions, names, stripe, write_frames, write_json

ALL: dict[str, Any] = {"frames": None, "expressions": None}


def write(root: Path, videos: dict[str, Any], mask_dict: Any, split: str = "train") -> Path:
    write_json(root / split / "meta_expressions.json", {"videos": videos})
    write_json(root / split / "mask_dict.json", mask_dict)
    write_frames(root / split / "JPEGImages", {video: value for video, value in videos.items() if ".." not in video})
    return root


def open_mevis(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("mevis", root=str(root), index=str(root / "index"), **options)


def one_video(root: Path, said: Any, mask_dict: Any, frames: int = 2, **options: Any) -> Any:
    write(root, {"v": described(names(frames), said)}, mask_dict)
    return read_all(open_mevis(root, **{**ALL, **options}))


def shown(images: list[MaskedImage]) -> dict[str, dict[str, int]]:
    return {image.scene.id: areas(image) for image in images}


def test_each_frame_has_the_masks_of_its_expressions(tmp_path: Path) -> None:
    mask_dict = {"7": [stripe(0), stripe(1)], "8": [stripe(2), stripe(0)], "99": [stripe(3)] * 2}
    images, rejects = one_video(tmp_path, expressions([7], [7, 8]), mask_dict)
    assert rejects == []
    assert shown(images) == {"v/00000": {"7": 600, "7+8": 1200}, "v/00001": {"7": 600, "7+8": 1200}}
    assert np.array_equal(masks.decode(images[1].scene.regions[1].rle), columns(1, 1, 0, 0) == 1)
    assert [image.scene.image for image in images] == ["v/00000.jpg", "v/00001.jpg"]
    assert {image.frame for image in images} == {None}
    assert images[0].open().size == (WIDTH, HEIGHT)


def test_objects_that_overlap_are_united(tmp_path: Path) -> None:
    half = masks.encode(columns(1, 0) == 1).json
    (image,), _ = one_video(tmp_path, expressions([8, 7]), {"7": [stripe(1)], "8": [half]}, frames=1)
    assert areas(image) == {"7+8": 1200}


def test_one_set_of_objects_is_one_region(tmp_path: Path) -> None:
    said = expressions([7, 8], [8, 7], [7, 7, 8], [8])
    (image,), rejects = one_video(tmp_path, said, {"7": [stripe(1)], "8": [stripe(2)]}, frames=1)
    assert (areas(image), rejects) == ({"7+8": 1200, "8": 600}, [])


ABSENT: dict[str, Any] = {"null": None, "an empty list": [], "an empty object": {}, "zero area": NOTHING,
                          "nulls": [None, None], "a list of zero area": [NOTHING, NOTHING]}  # fmt: skip


@pytest.mark.parametrize("absent", ABSENT.values(), ids=ABSENT)
def test_an_object_that_is_not_in_a_frame_is_no_fault(tmp_path: Path, absent: Any) -> None:
    mask_dict = {"7": [stripe(0), absent, absent], "8": [stripe(1), stripe(1), absent]}
    images, rejects = one_video(tmp_path, expressions([7], [7, 8]), mask_dict, frames=3)
    assert rejects == []
    assert shown(images) == {"v/00000": {"7": 600, "7+8": 1200}, "v/00001": {"7+8": 600}}


def test_a_list_of_rles_is_one_mask(tmp_path: Path) -> None:
    (image,), rejects = one_video(tmp_path, expressions([7]), {"7": [[stripe(0), None, stripe(2), NOTHING]]}, frames=1)
    assert (areas(image), rejects) == ({"7": 1200}, [])


def test_a_list_of_masks_that_ends_early_has_none_behind_its_end(tmp_path: Path) -> None:
    images, rejects = one_video(tmp_path, expressions([7]), {"7": [stripe(0)]}, frames=3)
    assert (shown(images), rejects) == ({"v/00000": {"7": 600}}, [])


# --- what is taken ---------------------------------------------------------------------------------------------------


def many(root: Path) -> Path:
    said = expressions([1], [2], [3], [1, 2])
    videos = {video: described(names(12), said) for video in ("a", "b", "c")}
    return write(root, videos, {str(one): [stripe(one)] * 12 for one in (1, 2, 3)})


def test_one_expression_in_five_frames_is_taken_of_each_video(tmp_path: Path) -> None:
    images, rejects = read_all(open_mevis(many(tmp_path)))
    assert rejects == []
    by_video = {video: [image for image in images if image.scene.id[0] == video] for video in "abc"}
    for taken in by_video.values():
        assert len(taken) == 5
        assert len({tuple(areas(image)) for image in taken}) == 1
        assert all(len(image.scene.regions) == 1 for image in taken)
    assert len({tuple(image.scene.id[1:] for image in taken) for taken in by_video.values()}) == 3  # each its own draw


def test_a_draw_depends_on_seed_and_video_alone(tmp_path: Path) -> None:
    source = open_mevis(many(tmp_path))
    again = pickle.loads(pickle.dumps(source))
    taken = [[image.scene for image in source.read(unit)] for unit in (0, 1, 2)]  # type: ignore[union-attr]
    assert [[image.scene for image in again.read(unit)] for unit in (2, 0, 1)] == [taken[2], taken[0], taken[1]]
    others = {tuple(image.scene.id for image in read_all(open_mevis(tmp_path, seed=seed))[0]) for seed in range(4)}
    assert len(others) == 4
    # The order of a file's objects is no part of it.
    path = tmp_path / "train" / "meta_expressions.json"
    videos = json.loads(path.read_text())["videos"]
    turned = {
        video: {**one, "expressions": dict(reversed(one["expressions"].items()))} for video, one in videos.items()
    }
    write_json(path, {"videos": dict(reversed(turned.items()))})
    assert [image.scene for image in read_all(open_mevis(tmp_path))[0]] == [scene for one in taken for scene in one]


def test_expressions_are_drawn_by_the_seed(tmp_path: Path) -> None:
    many(tmp_path)
    drawn = {
        tuple(tuple(areas(image)) for image in read_all(open_mevis(tmp_path, frames=None, seed=seed))[0])
        for seed in range(5)
    }
    assert len(drawn) > 1


def test_masks_belong_to_the_frames_in_the_order_of_their_names(tmp_path: Path) -> None:
    """As the published readers, which sort the names first."""
    write(tmp_path, {"v": described(["00001", "00000"], expressions([7]))}, {"7": [stripe(0), NOTHING]})
    (image,), _ = read_all(open_mevis(tmp_path))
    assert image.scene.id == "v/00000"


def test_more_of_both_can_be_taken(tmp_path: Path) -> None:
    source = open_mevis(many(tmp_path), frames=None, expressions=None)
    images, _ = read_all(source)
    assert len(images) == 36
    assert {tuple(areas(image)) for image in images} == {("1", "2", "3", "1+2")}
    assert {len(image.scene.regions) for image in read_all(open_mevis(tmp_path, expressions=3))[0]} == {3}
    assert len(read_all(open_mevis(tmp_path, frames=2))[0]) == 6
    assert source.settings["frames"] is None
    assert {"kind", "frames", "expressions", "min_area", "seed"} <= set(source.settings)


def test_an_expression_that_speaks_of_nothing_may_be_drawn(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"v": described(names(1), expressions([])), "w": described(names(1), expressions([7]))},
        {"7": [stripe(0)]},
    )
    images, rejects = read_all(open_mevis(tmp_path))
    assert ([image.scene.id for image in images], rejects) == (["w/00000"], [])


def test_small_masks_are_left_out(tmp_path: Path) -> None:
    (image,), rejects = one_video(
        tmp_path, expressions([7], [7, 8]), {"7": [stripe(0)], "8": [stripe(1)]}, min_area=601
    )
    assert (areas(image), rejects) == ({"7+8": 1200}, [])


# --- faults ----------------------------------------------------------------------------------------------------------


def test_a_frame_that_has_masks_and_is_not_there_is_one_reject(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"v": described(names(3), expressions([7], [8]))},
        {"7": [stripe(0)] * 3, "8": [stripe(1)] * 2 + [None]},
    )
    for frame in (1, 2):
        (tmp_path / "train" / "JPEGImages" / "v" / f"{frame:05d}.jpg").unlink()
    (image,), rejects = read_all(open_mevis(tmp_path, **ALL))
    assert image.scene.id == "v/00000"
    assert reasons(rejects) == [("v/00001", "frame-missing"), ("v/00002", "frame-missing")]
    assert rejects[0].message.startswith("v/00001.jpg: 2 masks, but no such frame under ")
    assert rejects[0].record == {"video": "v", "frame": "00001"}


def test_a_frame_without_masks_is_not_missed(tmp_path: Path) -> None:
    write(tmp_path, {"v": described(names(2), expressions([7]))}, {"7": [stripe(0), None]})
    (tmp_path / "train" / "JPEGImages" / "v" / "00001.jpg").unlink()
    assert read_all(open_mevis(tmp_path, **ALL))[1] == []


def test_masks_of_more_frames_than_are_listed_are_rejects(tmp_path: Path) -> None:
    images, rejects = one_video(tmp_path, expressions([7]), {"7": [stripe(0), stripe(0), None, stripe(1)]})
    assert len(images) == 2
    assert reasons(rejects) == [("v/frame-3", "frame-missing")]
    assert rejects[0].message == "v: masks of frame 3, but 2 frames"


VIDEOS: dict[str, tuple[Any, str, str]] = {
    "no frames": (described([], expressions([7])), "frame-missing", "v: its list of frames is empty"),
    "frames null": ({"frames": None, "expressions": {}}, "record-invalid", "v: expected a list of frames, and expr"),
    "no expressions": ({"frames": ["00000"]}, "record-invalid", "v: expected a list of frames, and expressions"),
    "no object": (["00000"], "record-invalid", "v: expected a list of frames, and expressions"),
    "leads out": (described(["../00000"], expressions([7])), "record-invalid", "name of a frame, got '../00000'"),
    "a number": (described([3], expressions([7])), "record-invalid", "expected the name of a frame, got 3"),
    "twice": (described(["00000", "00000"], expressions([7])), "record-duplicate", "v: a frame is listed twice"),
}


@pytest.mark.parametrize(("value", "reason", "message"), VIDEOS.values(), ids=VIDEOS)
def test_a_video_that_cannot_be_read_is_one_reject(tmp_path: Path, value: Any, reason: str, message: str) -> None:
    write(tmp_path, {"a": described(names(1), expressions([7]))}, {"7": [stripe(0)]})
    write_json(
        tmp_path / "train" / "meta_expressions.json",
        {"videos": {"v": value, "a": described(names(1), expressions([7]))}},
    )
    (image,), (reject,) = read_all(open_mevis(tmp_path, **ALL))
    assert image.scene.id == "a/00000"
    assert (reject.key, reject.reason) == ("v", reason)
    assert message in reject.message


@pytest.mark.parametrize("name", ["../v", "/etc", "a/../../v", "C:/v", ""])
def test_a_video_whose_name_leads_out_is_one_reject(tmp_path: Path, name: str) -> None:
    good = described(names(1), expressions([7]))
    write(tmp_path, {"v": good}, {"7": [stripe(0)]})
    write_json(tmp_path / "train" / "meta_expressions.json", {"videos": {name: good, "v": good}})
    photograph(tmp_path / "train" / "v" / "00000.jpg")  # what ../v would be
    (image,), (reject,) = read_all(open_mevis(tmp_path))
    assert image.scene.id == "v/00000"
    assert (reject.reason, reject.key) == ("record-invalid", name)


def test_a_name_that_no_text_can_hold_is_a_reject(tmp_path: Path) -> None:
    good = described(names(1), expressions([7]))
    write(tmp_path, {"v": good}, {"7": [stripe(0)]})
    write_json(tmp_path / "train" / "meta_expressions.json", {"videos": {"a\nb": good, "v": good}})
    _, (reject,) = read_all(open_mevis(tmp_path))
    assert (reject.reason, reject.record) == ("record-invalid", {"videos": [{"video": "a\nb"}]})


def test_a_video_that_is_listed_twice_is_a_reject(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"v": described(names(1), expressions([7])), "w": described(names(1), expressions([7]))},
        {"7": [stripe(0)]},
    )
    path = tmp_path / "train" / "meta_expressions.json"
    path.write_text(path.read_text().replace('"w": {', '"v": {'))
    images, (reject,) = read_all(open_mevis(tmp_path))
    assert (images, reject.reason) == ([], "record-duplicate")


@pytest.mark.parametrize("ids", [None, "seven", [7, "x"], [-1], [True], [2.5], {"7": 1}, [None]])
def test_an_expression_without_usable_ids_is_one_reject(tmp_path: Path, ids: Any) -> None:
    images, rejects = one_video(tmp_path, expressions([7], ids), {"7": [stripe(0)]})
    assert shown(images) == {"v/00000": {"7": 600}}
    assert reasons(rejects) == [("v/expression-1", "record-invalid")]


def test_an_expression_that_is_no_object_is_one_reject(tmp_path: Path) -> None:
    _, rejects = one_video(tmp_path, {**expressions([7]), "5": "the dog"}, {"7": [stripe(0)]})
    assert reasons(rejects) == [("v/expression-5", "record-invalid")]


def test_an_annotation_that_the_masks_lack_is_one_reject_for_its_expressions(tmp_path: Path) -> None:
    images, rejects = one_video(tmp_path, expressions([7], [7, 8], [8, 7]), {"7": [stripe(0)] * 2})
    assert shown(images) == {"v/00000": {"7": 600}, "v/00001": {"7": 600}}
    assert reasons(rejects) == [("v/7+8", "annotation-missing")]
    assert rejects[0].record == {"video": "v", "expressions": ["1", "2"], "objects": [7, 8]}


def test_an_annotation_that_is_no_list_is_one_reject(tmp_path: Path) -> None:
    images, rejects = one_video(tmp_path, expressions([7], [8]), {"7": [stripe(0)], "8": stripe(0)})
    assert (shown(images), reasons(rejects)) == ({"v/00000": {"7": 600}}, [("v/8", "record-invalid")])


BROKEN: dict[str, tuple[Any, str]] = {
    "another size": ({"size": [9, 9], "counts": masks.encode(columns(1, height=9, width=9) == 1).counts}, "mask-size"),
    "cut": ({"size": [HEIGHT, WIDTH], "counts": "o"}, "mask-invalid"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "mask-invalid"),
    "a text": ("mask", "mask-invalid"),
    "huge": ({"size": [60_000, 60_000], "counts": [0, 3_600_000_000]}, "mask-size"),
}


@pytest.mark.parametrize(("broken", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_mask_rejects_the_unions_that_need_it(tmp_path: Path, broken: Any, reason: str) -> None:
    mask_dict = {"7": [stripe(0)], "8": [broken], "9": [stripe(1)]}
    (image,), rejects = one_video(tmp_path, expressions([7], [7, 8], [9]), mask_dict, frames=1)
    assert areas(image) == {"7": 600, "9": 600}
    assert reasons(rejects) == [("v/00000/7+8", reason)]


def test_a_size_that_no_frame_has_is_not_believed(tmp_path: Path) -> None:
    huge = {"size": [60_000, 60_000], "counts": [0, 3_600_000_000]}
    images, rejects = one_video(tmp_path, expressions([7]), {"7": [huge]}, frames=1)
    assert (images, reasons(rejects)) == ([], [("v/00000/7", "mask-invalid")])


def test_a_frame_of_another_size_is_noticed_when_it_is_opened(tmp_path: Path) -> None:
    write(tmp_path, {"v": described(names(1), expressions([7]))}, {"7": [stripe(0)]})
    photograph(tmp_path / "train" / "JPEGImages" / "v" / "00000.jpg", width=9)
    (image,), _ = read_all(open_mevis(tmp_path))
    with pytest.raises(RecordError) as caught:
        image.open()
    assert caught.value.reason == "image-size"


# --- files -----------------------------------------------------------------------------------------------------------


def small(root: Path, split: str = "train") -> Path:
    return write(root, {"v": described(names(2), expressions([7]))}, {"7": [stripe(0)] * 2}, split)


@pytest.mark.parametrize("place", ["mevis/train", "MeViS/train", ""])
def test_files_are_found_in_the_usual_places(tmp_path: Path, place: str) -> None:
    small(tmp_path / "there")
    (tmp_path / "root" / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(tmp_path / "there" / "train", tmp_path / "root" / place, dirs_exist_ok=True)
    assert len(read_all(open_mevis(tmp_path / "root"))[0]) == 2


def test_the_other_split_and_other_names(tmp_path: Path) -> None:
    small(tmp_path, "valid_u")
    assert len(read_all(open_mevis(tmp_path, split="valid_u"))[0]) == 2
    (tmp_path / "valid_u" / "mask_dict.json").rename(tmp_path / "masks.json")
    (tmp_path / "valid_u" / "JPEGImages").rename(tmp_path / "frames")
    named = {"json": "valid_u/meta_expressions.json", "masks": "masks.json", "images": "frames"}
    assert len(read_all(open_mevis(tmp_path, **named))[0]) == 2


def test_frames_in_a_zip_are_read_in_place(tmp_path: Path) -> None:
    small(tmp_path)
    before, _ = read_all(open_mevis(tmp_path))
    pixels = before[0].open().tobytes()
    with zipfile.ZipFile(tmp_path / "train" / "JPEGImages.zip", "w") as archive:
        for path in (tmp_path / "train" / "JPEGImages").rglob("*.jpg"):
            archive.write(path, path.relative_to(tmp_path / "train"))
    shutil.rmtree(tmp_path / "train" / "JPEGImages")
    source = pickle.loads(pickle.dumps(open_mevis(tmp_path)))
    after, rejects = read_all(source)
    assert ([image.scene for image in after], rejects) == ([image.scene for image in before], [])
    assert after[0].open().tobytes() == pixels


def test_a_source_in_a_store(tmp_path: Path) -> None:
    small(tmp_path)
    address = f"memory://{tmp_path.name}"
    for path in (tmp_path / "train").rglob("*.*"):
        Folder(address).write(path.relative_to(tmp_path).as_posix(), path.read_bytes())
    Folder(f"{address}/train/JPEGImages/v").remove("00001.jpg")
    images, rejects = read_all(open_mask_source("mevis", root=address, index=str(tmp_path / "index"), **ALL))
    assert (shown(images), reasons(rejects)) == ({"v/00000": {"7": 600}}, [("v/00001", "frame-missing")])
    assert images[0].open().size == (WIDTH, HEIGHT)


def test_the_index_is_made_once_for_all_options(tmp_path: Path) -> None:
    read_all(open_mevis(many(tmp_path)))
    (index,) = (tmp_path / "index").glob("*.sqlite")
    before = index.stat().st_mtime_ns
    read_all(open_mevis(tmp_path, frames=2, expressions=None, seed=5, min_area=2))
    assert [(path, path.stat().st_mtime_ns) for path in (tmp_path / "index").glob("*.sqlite")] == [(index, before)]


SETUPS: dict[str, tuple[dict[str, Any], str]] = {
    "no split": ({"split": "valid"}, "split: expected train or valid_u, got 'valid'"),
    "no frames": ({"frames": 0}, "frames: expected a whole number from 1 on, or null for no limit, got 0"),
    "expressions": ({"expressions": "all"}, "expressions: expected a whole number from 1 on, or null"),
    "seed": ({"seed": -1}, "seed: expected a whole number from 0 on, got -1"),
    "json": ({"json": "../a.json"}, "json: expected a name under the root"),
    "no json": (
        {"json": "train/none.json"},
        r"none\.json: no such file; give the annotation file with the option json",
    ),
    "masks": (
        {"masks": "train/none.json"},
        r"none\.json: no such file; give the annotation file with the option masks",
    ),
    "no images": ({"images": "nowhere"}, "no folder nowhere; name another one with the option images"),
    "masks for expressions": (
        {"json": "train/mask_dict.json"},
        "expected 'videos' with 'expressions' that have 'anno_id'",
    ),
    "expressions for masks": (
        {"masks": "train/meta_expressions.json"},
        "it holds 1 annotations and none of the 1 that",
    ),
}


@pytest.mark.parametrize(("options", "message"), SETUPS.values(), ids=SETUPS)
def test_what_cannot_be_opened_says_what_to_do(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    small(tmp_path)
    with pytest.raises(SetupError, match=message):
        open_mevis(tmp_path, **options)


def test_missing_files_are_named(tmp_path: Path) -> None:
    small(tmp_path)
    (tmp_path / "train" / "JPEGImages").rename(tmp_path / "elsewhere")
    with pytest.raises(
        SetupError, match="no folder of frames, such as v, under train/JPEGImages or train; name the fo"
    ):
        open_mevis(tmp_path)
    (tmp_path / "train" / "mask_dict.json").unlink()
    with pytest.raises(
        SetupError, match=r"none of the files train/mask_dict\.json; name the file with the option masks"
    ):
        open_mevis(tmp_path)
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(SetupError, match=r"none of the files train/meta_expressions\.json, mevis/train/"):
        open_mevis(tmp_path)


def test_a_split_without_masks_is_refused(tmp_path: Path) -> None:
    said = {"0": {"exp": "the dog"}}
    write(tmp_path, {"v": described(names(1), said)}, {})
    with pytest.raises(SetupError, match="of a split whose masks are public"):
        open_mevis(tmp_path)


@pytest.mark.parametrize("file", ["meta_expressions.json", "mask_dict.json"])
def test_a_cut_file_is_refused_and_leaves_no_index(tmp_path: Path, file: str) -> None:
    small(tmp_path)
    path = tmp_path / "train" / file
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SetupError, match=rf"{file}: no complete JSON: .*fetch it again"):
        open_mevis(tmp_path)
    assert not list((tmp_path / "index").glob("*.sqlite"))


def test_only_annotations_that_the_split_names_are_indexed(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"v": described(names(1), expressions([7]))},
        {**{str(one): [stripe(1)] for one in range(100, 1100)}, "7": [stripe(0)]},
    )
    source = open_mevis(tmp_path)
    (image,), rejects = read_all(source)
    assert (areas(image), rejects, source.num_units) == ({"7": 600}, [], 1)
    (index,) = (tmp_path / "index").glob("*.sqlite")
    assert index.stat().st_size < (tmp_path / "train" / "mask_dict.json").stat().st_size
