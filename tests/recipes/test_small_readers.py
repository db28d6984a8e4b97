"""Each kind of source: masks and images come out of a tiny repository as expected."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clones import commit, encoded, photograph, png, rectangle, source
from PIL import Image

from recipes.small.prepare.build import build_source
from recipes.small.prepare.collection import Collection
from samtok_data import masks
from samtok_data.errors import SetupError
from samtok_data.masks import Mask


def drawn(collection: Collection, name: str = "trial.json") -> dict[str, list[Mask]]:
    """Masks by image."""
    content = json.loads(collection.files[name])
    files = {image["id"]: image for image in content["images"]}
    found: dict[str, list[Mask]] = {image["file_name"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        image = files[annotation["image_id"]]
        rle = masks.read_segmentation(annotation["segmentation"], image["height"], image["width"])
        found[image["file_name"]].append(masks.decode(rle))
    return found


def same(found: list[Mask], expected: list[Mask]) -> bool:
    return len(found) == len(expected) and all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def mat(**variables: Any) -> bytes:
    out = io.BytesIO()
    pytest.importorskip("scipy.io").savemat(out, variables)
    return out.getvalue()


def annotators(*maps: Any) -> bytes:
    """As BSDS500 keeps them: a row of cells, each a structure with the field Segmentation."""
    cells = np.empty((1, len(maps)), object)
    for place, labels in enumerate(maps):
        cells[0, place] = {"Segmentation": np.asarray(labels, np.uint16)}
    return mat(groundTruth=cells)


def test_bsds500_keeps_photographs_and_writes_a_map_an_annotator(tmp_path: Path) -> None:
    first, second = np.ones((64, 96)), rectangle(0, 0, 64, 40) + 1
    files: dict[str, bytes] = {}
    for seed, split in enumerate(("train", "val", "test")):
        files[f"i/{split}/{seed}5.jpg"] = encoded(photograph(seed), "JPEG")
        files[f"m/{split}/{seed}5.mat"] = annotators(first, second)
    built = build_source(source("bsds500", commit(tmp_path, files), {"images": "i", "maps": "m"}), tmp_path)
    assert built.files["images/val/15.jpg"] == files["i/val/15.jpg"]
    maps = {name for name in built.files if name.startswith("segments")}
    whole = {f"segments/{name}_a{number}.png" for name in ("train/05", "val/15") for number in (1, 2)}
    assert maps == whole | {"segments/test/25_a1.png"}
    assert np.array_equal(np.asarray(decoded(built.files["segments/train/05_a2.png"])), second)
    assert [image.name for image in built.seen if image.is_test] == ["extra/trial/images/test/25.jpg"]
    assert built.num_masks == 5


def test_bsds500_does_not_cut_large_labels_off(tmp_path: Path) -> None:
    files = {"i/train/1.jpg": encoded(photograph(1), "JPEG"), "m/train/1.mat": annotators(np.full((64, 96), 256))}
    with pytest.raises(SetupError, match=r"m/train/1\.mat: annotator 1: expected 1\.\.255, got 256\.\.256"):
        build_source(source("bsds500", commit(tmp_path, files), {"images": "i", "maps": "m"}), tmp_path)


def test_yolo_polygons_become_cocos_and_every_third_id_is_held_out(tmp_path: Path) -> None:
    box = "4 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n"
    files = {f"i/00{number}.jpg": encoded(photograph(number), "JPEG") for number in (3, 4, 5)}
    files |= {"l/003.txt": box.encode(), "l/004.txt": (box + "1 0.5 0.5\n").encode()}
    table = source("yolo", commit(tmp_path, files), {"images": "i", "labels": "l"}, options={"held_out_every": 3})
    built = build_source(table, tmp_path)
    expected = rectangle(16, 24, 48, 48)
    held, train = drawn(built, "heldout.json"), drawn(built, "train.json")
    assert list(held) == ["003.jpg"]
    assert same(held["003.jpg"], [expected])
    assert same(train["004.jpg"], [expected])
    assert train["005.jpg"] == []
    annotation = json.loads(built.files["heldout.json"])["annotations"][0]
    assert (annotation["category_id"], annotation["area"], annotation["bbox"]) == (5, 768.0, [24.0, 16.0, 24.0, 32.0])
    assert [image.stem for image in built.seen if image.is_test] == ["003"]


POLYGON = [8, 8, 40, 8, 40, 40, 8, 40]


def coco_files(annotations: list[dict[str, Any]], num_images: int = 2) -> dict[str, bytes]:
    numbers = range(1, num_images + 1)
    images = [{"id": number, "file_name": f"{number:012d}.jpg", "width": 96, "height": 64} for number in numbers]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    pictures = {f"i/{number:012d}.jpg": encoded(photograph(number), "JPEG") for number in numbers}
    return {"a.json": json.dumps(content).encode(), **pictures}


def annotation(image: int, segmentation: Any, **fields: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image, "segmentation": segmentation, "iscrowd": 0, **fields}


COCO_PATHS = {"annotations": ["a.json"], "images": ["elsewhere", "i"]}


def test_coco_masks_shrink_with_their_image_by_nearest_neighbour(tmp_path: Path) -> None:
    speckled = np.random.default_rng(0).random((64, 96)) < 0.5
    run_lengths = {"size": [64, 96], "counts": masks.encode(speckled).counts}
    listed = [
        annotation(1, [POLYGON, [1, 1, 2, 2]]),
        annotation(1, run_lengths),
        annotation(1, {"size": [64, 96], "counts": [64 * 48, 64 * 48]}),
        annotation(1, run_lengths, iscrowd=1),
        annotation(1, [[8, 8, 16, 8, 16, 12, 8, 12]]),  # 32 pixels: too small, then and there
    ]
    table = source("coco", commit(tmp_path, coco_files(listed)), COCO_PATHS, longest_side=48)
    built = build_source(table, tmp_path)
    assert decoded(built.files["images/000000000001.jpg"]).size == (48, 32)
    expected = [rectangle(4, 4, 20, 20, (32, 48)), speckled[1::2, 1::2], rectangle(0, 24, 32, 48, (32, 48))]
    assert same(drawn(built)["000000000001.jpg"], expected)
    assert list(drawn(built)) == ["000000000001.jpg"]  # the second has no mask
    assert built.num_masks == 3


def test_coco_polygons_are_scaled_to_an_image_of_another_size_than_listed(tmp_path: Path) -> None:
    files = coco_files([annotation(1, [POLYGON])], 1)
    files["i/000000000001.jpg"] = encoded(photograph(1, (192, 96)), "JPEG")
    found = drawn(build_source(source("coco", commit(tmp_path, files), COCO_PATHS), tmp_path))
    assert same(found["000000000001.jpg"], [rectangle(12, 16, 60, 80, (96, 192))])


def test_coco_leaves_out_what_others_took_small_masks_and_backgrounds(tmp_path: Path) -> None:
    frame = {"size": [64, 96], "counts": [0, 64 * 96]}
    listed = [
        *(annotation(number, [POLYGON]) for number in (1, 2, 4)),
        annotation(2, frame),
        annotation(2, [[0, 0, 12, 0, 12, 12, 0, 12]]),
        annotation(2, [[0, 0, 60, 0, 60, 48, 0, 48]]),  # two borders only
        annotation(3, frame),
    ]
    options = {"min_share": 0.05, "max_border": 0.3}
    at = commit(tmp_path, coco_files(listed, 4))
    taken = build_source(source("coco", at, COCO_PATHS, most=1), tmp_path)
    assert list(drawn(taken)) == ["000000000001.jpg"]
    built = build_source(source("coco", at, COCO_PATHS, options=options), tmp_path, [taken])
    assert list(drawn(built)) == ["000000000002.jpg", "000000000004.jpg"]
    assert same(drawn(built)["000000000002.jpg"], [rectangle(8, 8, 40, 40), rectangle(0, 0, 48, 60)])


def test_coco_polygons_and_categories_stay_but_for_their_scale(tmp_path: Path) -> None:
    files = coco_files([annotation(1, [POLYGON], area=1024, bbox=[8, 8, 32, 32], category_id=7)])
    table = source("coco-polygons", commit(tmp_path, files), {**COCO_PATHS, "images": ["i"]}, longest_side=48)
    content = json.loads(build_source(table, tmp_path).files["trial.json"])
    (changed,) = content["annotations"]
    assert changed["segmentation"] == [[number / 2 for number in POLYGON]]
    assert (changed["area"], changed["bbox"], changed["category_id"]) == (256.0, [4.0, 4.0, 16.0, 16.0], 7)
    assert [(image["width"], image["height"]) for image in content["images"]] == [(48, 32), (48, 32)]


def test_label_maps_give_one_mask_a_label_of_every_sampled_frame(tmp_path: Path) -> None:
    labels = rectangle(0, 0, 20, 20) * 3 + rectangle(30, 30, 60, 60) * 9
    files = {f"m/dog/{number}.png": png(labels) for number in range(6)}
    files |= {f"i/dog/{number}.jpg": encoded(photograph(number), "JPEG") for number in range(6)}
    options = {"map_ending": ".png", "image_ending": ".jpg", "void": [0]}
    folders = {"folders": [{"maps": "m", "images": "i"}]}
    table = source("label-maps", commit(tmp_path, files), folders, first=1, step=2, options=options)
    found = drawn(build_source(table, tmp_path))
    assert list(found) == ["dog_1.jpg", "dog_3.jpg", "dog_5.jpg"]
    assert same(found["dog_3.jpg"], [rectangle(0, 0, 20, 20), rectangle(30, 30, 60, 60)])


def test_mat_label_maps_give_connected_regions_and_the_whole(tmp_path: Path) -> None:
    parts = [rectangle(0, 0, 20, 20), rectangle(30, 30, 60, 60)]
    labels = (parts[0] * 2 + parts[1] * 2 + rectangle(0, 80, 10, 90)).astype(np.uint8)
    files = {"m/1_GT.mat": mat(regions=labels), "i/1.bmp": encoded(photograph(1), "BMP")}
    files |= {"m/2_GT.mat": mat(regions=np.ones((64, 96), np.uint8)), "i/2.bmp": encoded(photograph(2), "BMP")}
    files |= {"m/3_GT.mat": mat(regions=labels[:50]), "i/3.bmp": encoded(photograph(3), "BMP")}  # another size
    options = {"map_ending": "_GT.mat", "image_ending": ".bmp", "variable": "regions", "void": [0], "regions": 200}
    paths = {"folders": [{"maps": "m", "images": "i", "prefix": "x_"}]}
    at = commit(tmp_path, files)
    found = drawn(build_source(source("label-maps", at, paths, options={**options, "min_masks": 2}), tmp_path))
    assert list(found) == ["x_1.jpg"]
    assert same(found["x_1.jpg"], parts)
    whole = drawn(build_source(source("label-maps", at, paths, options={**options, "whole": True}), tmp_path))
    assert same(whole["x_1.jpg"], [*parts, labels > 0])


def test_via_shapes_are_drawn_and_images_of_another_size_left_out(tmp_path: Path) -> None:
    xs, ys = [10, 20, 30, 30, 20, 10], [10, 10, 10, 40, 40, 40]
    polygon = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
    shapes = [polygon, {"name": "circle", "cx": 60, "cy": 30, "r": 10}, {"name": "rect", "x": 0}]
    outside = {**polygon, "all_points_x": [100 + x for x in xs]}
    triangle = {"name": "polygon", "all_points_x": [10, 60, 60], "all_points_y": [10, 10, 60]}
    both = enumerate((polygon, outside))
    entries = {
        "a": {"filename": "1.jpg", "regions": [{"shape_attributes": shape} for shape in shapes]},
        "b": {"filename": "2.jpg", "regions": {str(k): {"shape_attributes": each} for k, each in both}},
        "c": {"filename": "3.jpg", "regions": [{"shape_attributes": triangle}]},
        "d": {"filename": "4.jpg", "regions": []},
    }
    files = {f"train/{number}.jpg": encoded(photograph(number), "JPEG") for number in range(1, 5)}
    files["train/via_region_data.json"] = json.dumps({"_via_img_metadata": entries}).encode()
    table = source("via", commit(tmp_path, files), {"folders": ["train"], "prefix": "who"})
    found = drawn(build_source(table, tmp_path))
    assert list(found) == ["who_train_1.jpg"]
    square, circle = found["who_train_1.jpg"]
    assert np.array_equal(square, rectangle(10, 10, 41, 31))
    assert masks.coco_box(masks.encode(circle)) == (50, 20, 21, 21)


def test_near_equal_images_of_a_source_are_taken_once(tmp_path: Path) -> None:
    labels = png(rectangle(0, 0, 20, 20))
    image = photograph(1)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((192, 128))
    files = {"m/1.png": labels, "m/2.png": png(rectangle(0, 0, 20, 20, (128, 192))), "m/3.png": labels}
    files |= {"i/1.png": encoded(image), "i/2.png": encoded(mirrored), "i/3.png": encoded(photograph(3))}
    options = {"map_ending": ".png", "image_ending": ".png", "void": [0]}
    table = source("label-maps", commit(tmp_path, files), {"folders": [{"maps": "m", "images": "i"}]}, options=options)
    assert list(drawn(build_source(table, tmp_path))) == ["1.jpg", "3.jpg"]


def test_a_second_image_of_a_name_is_left_out(tmp_path: Path) -> None:
    files = {f"m/{name}.png": png(rectangle(0, 0, 20, 20)) for name in ("1 x", "1_x")}
    files |= {"i/1 x.png": encoded(photograph(1)), "i/1_x.png": encoded(photograph(2))}
    options = {"map_ending": ".png", "image_ending": ".png", "void": [0]}
    table = source("label-maps", commit(tmp_path, files), {"folders": [{"maps": "m", "images": "i"}]}, options=options)
    built = build_source(table, tmp_path)
    assert json.loads(built.files["trial.json"])["images"] == [
        {"id": 1, "file_name": "1_x.jpg", "width": 96, "height": 64}
    ]


def test_the_same_repository_gives_the_same_bytes(tmp_path: Path) -> None:
    table = source("coco", commit(tmp_path, coco_files([annotation(1, [POLYGON])])), COCO_PATHS, longest_side=48)
    first, second = build_source(table, tmp_path), build_source(table, tmp_path)
    assert first.files == second.files
    assert first.digest == second.digest


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"trial: kind: expected one of bsds500, .*, got 'video'"):
        build_source(source("video", "0" * 40, {}), tmp_path)
