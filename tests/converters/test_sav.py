"""SA-V: masklets of video files, and val's and test's folders of frames."""

from __future__ import annotations

import json
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converters.masks.registry import open_mask_source
from converters.masks.source import MaskedImage, MaskSource
from converters.masks.videos import sav_masklets
from samtok_data import masks
from samtok_data.errors import RecordError, SetupError
from samtok_data.storage import Folder
from tests.converters.mask_sources import HEIGHT, WIDTH, areas, columns, label_map, photograph, read_all, reasons
from tests.converters.video_sources import NOTHING, names, number_of, stripe, video, write_json


def masklets(*of_each: list[Any], **fields: Any) -> dict[str, Any]:
    """An annotation file of masklets, each a list of a mask for every annotated frame."""
    return {
        "video_id": "sav_000001",
        "video_frame_count": 9.0,
        "video_height": 1.0,  # wrong on purpose: nobody may read it
        "masklet": [list(frame) for frame in zip(*of_each, strict=True)],
        "masklet_id": list(range(len(of_each))),
        **fields,
    }


def write(
    root: Path, annotation: Any, *, kind: str = "auto", frames: int = 12, name: str = "sav_000001", **of: Any
) -> Path:
    video(root / f"{name}.mp4", frames, **of)
    write_json(root / f"{name}_{kind}.json", annotation)
    return root


def open_sav(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("sav", root=str(root), index=str(root / "index"), **options)


TWO = masklets([stripe(0)] * 3, [stripe(1), NOTHING, stripe(2)])


# --- the real example ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def example(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published annotations of sav_000001 with a made-up video of its frames and size."""
    root = tmp_path_factory.mktemp("sav")
    for path in (samples / "masks" / "sav_example").glob("*.json"):
        shutil.copyfile(path, root / path.name)
    video(root / "sav_000001.mp4", 483, height=848, width=480)
    return root


def test_the_published_choice_of_the_example_has_102_masks(example: Path) -> None:
    images, rejects = read_all(open_sav(example))
    assert rejects == []
    assert sum(len(image.scene.regions) for image in images) == 102
    assert [image.frame for image in images] == list(range(0, 481, 40))
    assert [image.scene.id for image in images][:2] == ["sav_000001-00000", "sav_000001-00040"]
    assert [number_of(image.open()) for image in images] == [number % 50 for number in range(0, 481, 40)]
    assert {(image.scene.height, image.scene.width, image.scene.image) for image in images} == {
        (848, 480, "sav_000001.mp4")
    }
    assert {image.open().size for image in images} == {(480, 848)}


def test_every_mask_of_the_example_is_read(example: Path) -> None:
    """480 manual and 952 automatic masks, whose areas have the means that the files state."""
    found: dict[str, list[int]] = {}
    frames: list[int | None] = []
    source = open_sav(example, masklets="both", step=1)
    for image in source.read(0):
        assert isinstance(image, MaskedImage)
        frames.append(image.frame)
        for region, area in areas(image).items():
            found.setdefault(region, []).append(area)
    assert frames == list(range(0, 481, 4))
    for kind, number in (("manual", 480), ("auto", 952)):
        value = json.loads((example / f"sav_000001_{kind}.json").read_text())
        stated = dict(zip(value["masklet_id"], value["masklet_size_abs"], strict=True))
        means = {one: np.mean(found[f"{kind}-{one}"]) for one in stated}
        assert means == pytest.approx(stated)
        assert sum(len(sizes) for region, sizes in found.items() if region.startswith(kind)) == number


# --- video files -----------------------------------------------------------------------------------------------------


def test_an_annotation_belongs_to_every_fourth_frame(tmp_path: Path) -> None:
    source = open_sav(write(tmp_path, TWO), step=1)
    images, rejects = read_all(pickle.loads(pickle.dumps(source)))
    assert rejects == []
    assert [(image.scene.id, image.frame, number_of(image.open())) for image in images] == [
        ("sav_000001-00000", 0, 0),
        ("sav_000001-00004", 4, 4),
        ("sav_000001-00008", 8, 8),
    ]
    # An object of zero area is not in the frame.
    assert [areas(image) for image in images] == [
        {"auto-0": 600, "auto-1": 600},
        {"auto-0": 600},
        {"auto-0": 600, "auto-1": 600},
    ]
    assert np.array_equal(masks.decode(images[2].scene.regions[1].rle), columns(0, 0, 1, 0) == 1)
    assert pickle.loads(pickle.dumps(images[2])).open().size == (WIDTH, HEIGHT)


def test_a_frame_without_masks_is_not_given(tmp_path: Path) -> None:
    images, rejects = read_all(
        open_sav(write(tmp_path, masklets([stripe(0), NOTHING, None], [None, NOTHING, []])), step=1)
    )
    assert ([image.frame for image in images], rejects) == ([0], [])


def test_every_tenth_annotated_frame_is_taken_and_the_step_can_be_set(tmp_path: Path) -> None:
    write(tmp_path, masklets([stripe(0)] * 21), frames=82)
    assert [image.frame for image in read_all(open_sav(tmp_path))[0]] == [0, 40, 80]
    assert [image.frame for image in read_all(open_sav(tmp_path, step=7))[0]] == [0, 28, 56]


def test_ids_are_the_files_own(tmp_path: Path) -> None:
    (image,), _ = read_all(open_sav(write(tmp_path, masklets([stripe(0)], [stripe(1)], masklet_id=[12, 3]))))
    assert areas(image) == {"auto-12": 600, "auto-3": 600}


def test_masklets_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path, masklets([stripe(0)] * 3))
    write(tmp_path, masklets([stripe(1)] * 2), kind="manual")
    for which, regions in (("auto", ["auto-0"]), ("manual", ["manual-0"]), ("both", ["auto-0", "manual-0"])):
        images, rejects = read_all(open_sav(tmp_path, masklets=which, step=1))
        assert (list(areas(images[0])), rejects) == (regions, [])
    assert [list(areas(image)) for image in images] == [regions, regions, ["auto-0"]]


def test_small_and_drawn_masks(tmp_path: Path) -> None:
    half = masks.encode(columns(0, 1) == 1).json
    write(tmp_path, masklets([stripe(0)] * 9, [half] * 9, [stripe(1)] * 9), frames=36)
    assert {tuple(areas(image)) for image in read_all(open_sav(tmp_path, step=1, min_area=601))[0]} == {("auto-1",)}
    source = open_sav(tmp_path, step=1, masks_per_image=1)
    drawn = [tuple(areas(image)) for image in read_all(source)[0]]
    assert len(set(drawn)) == 3
    assert [tuple(areas(image)) for image in read_all(source)[0]] == drawn
    assert [
        tuple(areas(image)) for image in read_all(open_sav(tmp_path, step=1, masks_per_image=1, seed=1))[0]
    ] != drawn


def test_a_video_that_is_turned_is_compared_as_it_is_shown(tmp_path: Path) -> None:
    write(tmp_path, TWO, height=WIDTH, width=HEIGHT, turn=90)
    images, rejects = read_all(open_sav(tmp_path, step=1))
    assert ([image.open().size for image in images], rejects) == ([(WIDTH, HEIGHT)] * 3, [])


def test_a_frame_of_another_size_is_one_reject(tmp_path: Path) -> None:
    write(tmp_path, TWO, height=WIDTH, width=HEIGHT)
    write(tmp_path, TWO, name="sav_000002")
    images, rejects = read_all(open_sav(tmp_path, step=1))
    assert [image.scene.image for image in images] == ["sav_000002.mp4"] * 3
    assert reasons(rejects) == [(f"sav_000001-{number:05d}", "image-size") for number in (0, 4, 8)]
    assert rejects[1].message == "sav_000001.mp4: frame 4: its masks are drawn on 60x40, it is 40x60"


def test_a_shorter_video_gives_its_frames_and_a_reject_for_each_that_is_missing(tmp_path: Path) -> None:
    write(tmp_path, masklets([stripe(0)] * 3 + [NOTHING, stripe(0)]), frames=7)
    images, rejects = read_all(open_sav(tmp_path, step=1))
    assert [image.frame for image in images] == [0, 4]
    assert reasons(rejects) == [("sav_000001-00008", "frame-missing"), ("sav_000001-00016", "frame-missing")]
    assert rejects[0].message == "sav_000001.mp4: masks of frame 8, but the video ends before it"
    assert rejects[0].record == {"video": "sav_000001.mp4", "frame": 8}


def test_a_video_of_another_frame_rate_is_one_reject(tmp_path: Path) -> None:
    images, rejects = read_all(open_sav(write(tmp_path, TWO, frames=12 + 24), step=1))
    assert (len(images), rejects) == (3, [])  # a second more is a difference of counting
    video(tmp_path / "sav_000001.mp4", 12 + 25)
    images, rejects = read_all(open_sav(tmp_path, step=1))
    assert (images, reasons(rejects)) == ([], [("sav_000001", "record-invalid")])
    assert rejects[0].message.startswith("sav_000001.mp4: it has 37 frames, and its annotation covers 12")


def test_a_video_that_cannot_be_decoded_is_one_reject(tmp_path: Path) -> None:
    write(tmp_path, TWO)
    write(tmp_path, TWO, name="sav_000002")
    (tmp_path / "sav_000001.mp4").write_bytes(b"no video" * 99)
    images, rejects = read_all(open_sav(tmp_path, step=1))
    assert ({image.scene.image for image in images}, len(images)) == ({"sav_000002.mp4"}, 3)
    assert reasons(rejects) == [("sav_000001", "video-unreadable")]


def test_masks_behind_a_damaged_place_are_rejects(tmp_path: Path) -> None:
    path = write(tmp_path, masklets([stripe(0)] * 12), frames=48, noise=9) / "sav_000001.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    images, rejects = read_all(open_sav(tmp_path, step=1))
    assert 1 < len(images) < 12
    assert reasons(rejects) == [(f"sav_000001-{4 * place:05d}", "video-unreadable") for place in range(len(images), 12)]


BROKEN: dict[str, tuple[Any, str]] = {
    "another size": ({"size": [9, 9], "counts": masks.encode(columns(1, height=9, width=9) == 1).counts}, "mask-size"),
    "cut": ({"size": [HEIGHT, WIDTH], "counts": "o"}, "mask-invalid"),
    "a number": (3, "mask-invalid"),
}


@pytest.mark.parametrize(("broken", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_mask_is_one_reject(tmp_path: Path, broken: Any, reason: str) -> None:
    write(tmp_path, masklets([stripe(0)] * 2, [broken, stripe(1)], [stripe(2)] * 2))
    images, rejects = read_all(open_sav(tmp_path, step=1))
    assert [list(areas(image)) for image in images] == [["auto-0", "auto-2"], ["auto-0", "auto-1", "auto-2"]]
    assert reasons(rejects) == [("sav_000001-00000/auto-1", reason)]


ANNOTATIONS: dict[str, tuple[Any, str, str]] = {
    "a list": ([], "annotation-unreadable", "expected the lists 'masklet' and 'masklet_id', as SA-V's"),
    "no ids": ({"masklet": []}, "annotation-unreadable", "expected the lists 'masklet' and 'masklet_id'"),
    "an id of another kind": (masklets([stripe(0)], masklet_id=[None]), "record-invalid", "whole numbers, got None"),
}


@pytest.mark.parametrize(("value", "reason", "message"), ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_a_broken_annotation_is_one_reject(tmp_path: Path, value: Any, reason: str, message: str) -> None:
    write(tmp_path, value)
    write(tmp_path, masklets([stripe(1)]), kind="manual")
    (image,), (reject,) = read_all(open_sav(tmp_path, masklets="both"))
    assert list(areas(image)) == ["manual-0"]
    assert (reject.key, reject.reason) == ("sav_000001/auto", reason)
    assert message in reject.message


def test_a_json_file_that_is_cut_or_too_large_is_one_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, TWO)
    path = tmp_path / "sav_000001_auto.json"
    path.write_bytes(path.read_bytes()[:-9])
    assert reasons(read_all(open_sav(tmp_path))[1]) == [("sav_000001/auto", "annotation-unreadable")]
    write(tmp_path, TWO)
    monkeypatch.setattr(sav_masklets, "MAX_JSON_BYTES", 100)
    assert reasons(read_all(open_sav(tmp_path))[1]) == [("sav_000001/auto", "annotation-unreadable")]


def test_a_frame_whose_masks_are_not_one_for_each_masklet_is_one_reject(tmp_path: Path) -> None:
    value = masklets([stripe(0)] * 4, [stripe(1)] * 4)
    value["masklet"][1:3] = [[stripe(0)], None]
    images, rejects = read_all(open_sav(write(tmp_path, value, frames=16), step=1))
    assert [image.frame for image in images] == [0, 12]
    assert reasons(rejects) == [
        ("sav_000001-00004/auto", "record-invalid"),
        ("sav_000001-00008/auto", "record-invalid"),
    ]
    assert rejects[0].message == "sav_000001_auto.json: expected 2 masks in a frame, got 1 of them"


def test_an_id_that_comes_again_is_a_reject(tmp_path: Path) -> None:
    (image,), rejects = read_all(open_sav(write(tmp_path, masklets([stripe(0)], [stripe(1)], masklet_id=[4, 4]))))
    assert (areas(image), reasons(rejects)) == ({"auto-4": 600}, [("sav_000001-00000/auto-4", "record-duplicate")])


def test_a_video_may_have_manual_masklets_only(tmp_path: Path) -> None:
    write(tmp_path, TWO)
    write(tmp_path, masklets([stripe(0)]), kind="manual", name="sav_000002")
    images, rejects = read_all(open_sav(tmp_path))
    assert ({image.scene.image for image in images}, rejects) == ({"sav_000001.mp4"}, [])
    images, rejects = read_all(open_sav(tmp_path, masklets="manual"))
    assert {image.scene.image for image in images} == {"sav_000002.mp4"}
    assert reasons(rejects) == [("sav_000001", "annotation-missing")]  # every video has those
    assert rejects[0].message.startswith("sav_000001: no sav_000001_manual.json under ")


def test_halves_without_their_other_half_are_rejects(tmp_path: Path) -> None:
    write(tmp_path, TWO)
    video(tmp_path / "sav_000002.mp4", 4)
    write_json(tmp_path / "sav_000003_auto.json", TWO)
    images, rejects = read_all(open_sav(tmp_path))
    assert ([image.frame for image in images], reasons(rejects)) == (
        [0],
        [("sav_000002", "annotation-missing"), ("sav_000003", "image-missing")],
    )


def test_files_of_one_name_are_a_reject(tmp_path: Path) -> None:
    for folder in ("sav_000", "sav_001"):
        write(tmp_path / folder, TWO)
    assert reasons(read_all(open_sav(tmp_path))[1]) == [("sav_000001", "record-duplicate")]
    (tmp_path / "sav_001" / "sav_000001.mp4").unlink()
    assert reasons(read_all(open_sav(tmp_path))[1]) == [("sav_000001", "record-duplicate")]


# --- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "sav_000", "sav_train/sav_000", "sav_000/sav_train/sav_000", "a/b/c/d"])
def test_videos_are_found_below_the_root(tmp_path: Path, place: str) -> None:
    write(tmp_path / place, TWO)
    (image,), rejects = read_all(open_sav(tmp_path))
    assert (image.scene.id, rejects) == ("sav_000001-00000", [])
    folder = place.removeprefix("sav_train/")
    assert image.scene.image == f"{folder}/sav_000001.mp4".lstrip("/")


def test_videos_too_deep_or_elsewhere_are_found_by_option(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "c" / "d" / "e", TWO)
    with pytest.raises(
        SetupError, match=r"0 videos \(sav_000001\.mp4\) and 0 files of masklets \(sav_000001_auto\.json"
    ):
        open_sav(tmp_path)
    assert len(read_all(open_sav(tmp_path, videos="a/b/c"))[0]) == 1


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_an_archive_is_read_in_place(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "there" / "sav_train" / "sav_000", TWO)
    before = read_all(open_sav(tmp_path / "there", step=1))[0]
    files = sorted((tmp_path / "there" / "sav_train").rglob("*.*"))
    if ending == "zip":
        with zipfile.ZipFile(tmp_path / "sav_000.zip", "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(tmp_path / "there"))
    else:
        with tarfile.open(tmp_path / "sav_000.tar", "w") as archive:
            for path in files:
                archive.add(path, str(path.relative_to(tmp_path / "there")))
    source = pickle.loads(pickle.dumps(open_sav(tmp_path, videos=f"sav_000.{ending}", step=1)))
    images, rejects = read_all(source)
    assert rejects == []
    assert [(image.scene.id, image.scene.regions) for image in images] == [
        (one.scene.id, one.scene.regions) for one in before
    ]
    assert [image.open().tobytes() for image in images] == [image.open().tobytes() for image in before]


def test_videos_in_a_store(tmp_path: Path) -> None:
    framed(write(tmp_path / "here" / "sav_000", TWO).parent / "sav_val")
    address = f"memory://{tmp_path.name}"
    for path in (tmp_path / "here").rglob("*.*"):
        Folder(address).write(path.relative_to(tmp_path / "here").as_posix(), path.read_bytes())
    for videos in (None, "sav_val"):
        there = open_mask_source("sav", root=address, index=str(tmp_path / "index"), videos=videos, step=1)
        here = open_sav(tmp_path / "here", videos=videos, step=1)
        images, rejects = read_all(there)
        assert rejects == []
        assert [image.scene for image in images] == [image.scene for image in read_all(here)[0]]
        assert there.settings == here.settings
        assert {image.open().size for image in images} == {(WIDTH, HEIGHT)}


SETUPS: dict[str, tuple[dict[str, Any], str]] = {
    "masklets": ({"masklets": "all"}, "masklets: expected auto or manual or both, got 'all'"),
    "step": ({"step": 0}, "step: expected a whole number from 1 on, got 0"),
    "no folder": ({"videos": "sav_val"}, "no folder sav_val; name another one with the option videos"),
    "leads out": ({"videos": "../sav"}, "videos: expected a name under the root"),
    "no such masklets": ({"masklets": "manual"}, r"1 videos .* and 0 files of masklets \(sav_000001_manual\.json\)"),
}


@pytest.mark.parametrize(("options", "message"), SETUPS.values(), ids=SETUPS)
def test_what_cannot_be_opened_says_what_to_do(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        open_sav(write(tmp_path, TWO), **options)


def test_files_that_do_not_belong_together_are_rejects(tmp_path: Path) -> None:
    video(tmp_path / "sav_000001.mp4", 4)
    write_json(tmp_path / "sav_000002_auto.json", TWO)
    images, rejects = read_all(open_sav(tmp_path))
    assert (images, len(rejects)) == ([], 2)


# --- val and test ----------------------------------------------------------------------------------------------------


def framed(root: Path, frames: int = 9) -> Path:
    """Two objects, the second of them only in frame 0."""
    for name in names(frames):
        photograph(root / "JPEGImages_24fps" / "sav_000262" / f"{name}.jpg")
    for name in names(frames)[::4]:
        label_map(root / "Annotations_6fps" / "sav_000262" / "000" / f"{name}.png", columns(0, 255))
    label_map(root / "Annotations_6fps" / "sav_000262" / "001" / "00000.png", columns(1, 0, 0))
    label_map(root / "Annotations_6fps" / "sav_000262" / "001" / "00004.png", columns(0))
    return root


@pytest.mark.parametrize("place", ["", "sav_val"])
def test_frames_in_folders_have_a_file_for_each_object(tmp_path: Path, place: str) -> None:
    framed(tmp_path / place)
    source = open_sav(tmp_path, step=1, videos=place or None)
    images, rejects = read_all(pickle.loads(pickle.dumps(source)))
    assert (rejects, source.num_units) == ([], 1)
    assert {image.scene.id: areas(image) for image in images} == {
        "sav_000262/00000": {"000": 1200, "001": 800},
        "sav_000262/00004": {"000": 1200},
        "sav_000262/00008": {"000": 1200},
    }
    assert (images[1].scene.image, images[1].frame) == ("sav_000262/00004.jpg", None)
    assert images[1].open().size == (WIDTH, HEIGHT)


def test_every_tenth_annotated_frame_of_a_folder_is_taken(tmp_path: Path) -> None:
    framed(tmp_path, frames=81)
    assert [image.scene.id[-5:] for image in read_all(open_sav(tmp_path))[0]] == ["00000", "00040", "00080"]


def test_faults_of_frames_in_folders_are_rejects(tmp_path: Path) -> None:
    framed(tmp_path, frames=13)
    pngs, images = tmp_path / "Annotations_6fps", tmp_path / "JPEGImages_24fps"
    (pngs / "sav_000262" / "000" / "00000.png").write_text("text")
    label_map(pngs / "sav_000262" / "002" / "00004.png", columns(1, height=9, width=9))
    (images / "sav_000262" / "00008.jpg").unlink()
    photograph(images / "sav_000262" / "00012.jpg", width=9)
    label_map(pngs / "sav_000262" / "000" / "first.png", columns(1))
    label_map(pngs / "sav_000263" / "000" / "00000.png", columns(1))
    photograph(images / "sav_000264" / "00000.jpg")
    found, rejects = read_all(open_sav(tmp_path, step=1))
    assert [(image.scene.id, list(areas(image))) for image in found] == [
        ("sav_000262/00000", ["001"]),
        ("sav_000262/00004", ["000"]),
        ("sav_000262/00012", ["000"]),
    ]
    with pytest.raises(RecordError, match="its masks are drawn on 60x40, the image is 9x40") as caught:
        found[2].open()
    assert caught.value.reason == "image-size"
    assert reasons(rejects) == [
        ("sav_000262/000/first", "record-invalid"),
        ("sav_000262/00000/000", "annotation-unreadable"),
        ("sav_000262/00004/002", "mask-size"),
        ("sav_000262/00008", "frame-missing"),
        ("sav_000263", "frame-missing"),
        ("sav_000264", "annotation-missing"),
    ]


def test_a_zip_of_folders_is_read_in_place(tmp_path: Path) -> None:
    framed(tmp_path / "sav_val")
    before = [image.scene for image in read_all(open_sav(tmp_path, videos="sav_val", step=1))[0]]
    with zipfile.ZipFile(tmp_path / "sav_val.zip", "w") as archive:
        for path in sorted((tmp_path / "sav_val").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path))
    shutil.rmtree(tmp_path / "sav_val")
    images, rejects = read_all(open_sav(tmp_path, videos="sav_val", step=1))
    assert ([image.scene for image in images], rejects) == (before, [])
    assert images[0].open().size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("kept", ["JPEGImages_24fps", "Annotations_6fps"])
def test_an_empty_folder_is_refused(tmp_path: Path, kept: str) -> None:
    framed(tmp_path)
    for folder in {"JPEGImages_24fps", "Annotations_6fps"} - {kept}:
        shutil.rmtree(tmp_path / folder)
        (tmp_path / folder).mkdir()
    with pytest.raises(
        SetupError, match=r"expected JPEGImages_24fps/<video>/00000\.jpg and Annotations_6fps/<video>/000/"
    ):
        open_sav(tmp_path)


def test_palette_and_bilevel_files_are_read(tmp_path: Path) -> None:
    framed(tmp_path)
    folder = tmp_path / "Annotations_6fps" / "sav_000262"
    Image.fromarray(columns(0, 1) == 1).save(folder / "000" / "00000.png")
    Image.fromarray(columns(0, 3).astype(np.uint8), "P").save(folder / "001" / "00000.png")
    images, rejects = read_all(open_sav(tmp_path))
    assert (areas(images[0]), rejects) == ({"000": 1200, "001": 1200}, [])
