"""What is counted in outputs of both forms, what is written, and what happens where a file is damaged."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cli import main
from pipelines.evaluation.measurement import SIZE_CLASSES, size_class
from pipelines.stats.figures import AREA_EDGES, Figures, ViewMasks
from pipelines.stats.reading import shard_images, table_images
from pipelines.stats.report import PAGE_NAME, count_output
from pipelines.verify import find_outputs
from samtok_data import mask_table, masks
from samtok_data.errors import SetupError
from samtok_data.fingerprints import Fingerprint
from samtok_data.mask_table import MaskRow, MaskTableWriter
from samtok_data.masks import RLE
from samtok_data.outputs import Form, SplitOutput, UnitEntry
from samtok_data.rejects import Reject
from samtok_data.samples import Sample
from samtok_data.shards import pack
from samtok_data.storage import Folder
from samtok_data.words import MaskVocabulary

TOKENIZER = {"name": "small", "sha256": "ab" * 32}
FINGERPRINT = Fingerprint({"tokenizer": {"sha256": "ab" * 32, "config": {"codebook_size": 4, "depth": 2}}})
VOCABULARY = MaskVocabulary(4, 2)
HOSTILE = """<img src=x onerror="alert('1')">"""


def strip(start: int, end: int, pixels: int = 100) -> RLE:
    """One row of pixels, foreground from ``start`` to before ``end``."""
    mask_HW = np.zeros((1, pixels), np.bool_)
    mask_HW[0, start:end] = True
    return masks.encode(mask_HW)


def row(scene: str, region: int, rle: RLE, codes: tuple[int, int], iou: float | None = None) -> MaskRow:
    return MaskRow(source="sa1b", image=f"{scene}.jpg", scene=scene, region=str(region), rle=rle, codes=codes, iou=iou)


def table_of(rows: list[MaskRow]) -> bytes | None:
    writer = MaskTableWriter(VOCABULARY, TOKENIZER)
    writer.add(rows)
    return writer.finish()


ROWS = [
    row("a", 0, strip(0, 5), (0, 0), 0.5),
    row("a", 1, strip(5, 10), (0, 0), 1.0),  # one word with the mask before
    row("a", 2, strip(0, 60), (1, 3)),
    row("b", 0, strip(0, 5), (0, 0)),
    row("b", 1, strip(0, 5), (0, 0)),  # the same mask again
    row("c", 0, strip(0, 1, 10_000), (0, 0), 0.0),
]


def commit(output: SplitOutput, index: int, content: bytes | None, samples: int, images: int, masks: int) -> UnitEntry:
    rejects = [Reject(f"x-{index}", "image-missing", "it is not there", None)] if index else []
    return output.commit(
        index,
        content=content,
        samples=samples,
        rejects=rejects,
        images=images,
        masks=masks,
        tokenizer=TOKENIZER,
        run=FINGERPRINT.digest,
    )


def begun(out: Path, dataset: str, split: str, form: Form) -> SplitOutput:
    output = SplitOutput(Folder(out), dataset, split, form)
    output.begin(FINGERPRINT, overwrite=False)
    return output


def mask_fields(
    region: str, rle: RLE, codes: tuple[int, int], iou: float | None, view: str = "image"
) -> dict[str, Any]:
    return {
        "word": VOCABULARY.format(codes),
        "codes": list(codes),
        "view": view,
        "region": region,
        "rle": rle.json,
        "area": masks.area(rle),
        "bbox": list(masks.coco_box(rle)),
        "iou": iou,
    }


def sample(key: str, image: str, *found: dict[str, Any]) -> Sample:
    return Sample(key, {"id": key, "image": [image], "masks": list(found)}, {})


FIRST = mask_fields("1", strip(0, 5), (0, 0), 0.5)
SECOND = mask_fields("2", strip(5, 10), (0, 0), 0.25)
SHARD = [
    sample("s1", "a.jpg", FIRST),
    sample("s2", "b.jpg", mask_fields("1", strip(0, 60), (1, 3), None)),
    sample("s3", "a.jpg", SECOND, FIRST),  # an image again, and a mask that was named before
    sample("s4", "c.jpg"),  # nothing to find
]


def make(out: Path) -> None:
    """A table of two units, one of them without a mask, and a shard."""
    table = begun(out, "sa1b", "masks", "table")
    entries = [commit(table, 0, table_of(ROWS), 6, 3, 6), commit(table, 1, None, 0, 0, 0)]
    table.finish(FINGERPRINT, entries)
    shards = begun(out, "gres", "val", "shards")
    shards.finish(FINGERPRINT, [commit(shards, 0, pack(SHARD), 4, 3, 3)])


def stats(out: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["stats", str(out), *options])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Outputs that nobody counted yet."""
    make(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Outputs that were counted, and what was printed as JSON."""
    folder = tmp_path_factory.mktemp("counted")
    make(folder)
    return folder, stats(folder, "--json")


# --- what is counted --------------------------------------------------------------------------------------------------


def test_the_figures_of_a_table(counted: tuple[Path, Result]) -> None:
    out, done = counted
    assert done.exit_code == 0
    values = json.loads((out / ".samtok" / "stats.json").read_text())
    assert json.loads(done.stdout) == values
    shards, table = values["outputs"]
    assert (shards["name"], table["name"]) == ("gres/val", "sa1b/masks")
    numbers = {name: table[name] for name in ("form", "complete", "units", "files", "images", "samples", "masks")}
    assert numbers == {
        "form": "table",
        "complete": True,
        "units": 2,
        "files": 1,
        "images": 3,
        "samples": 6,
        "masks": 6,
    }
    assert table["rejects"] == {"image-missing": 1}
    assert table["tokenizer"] == TOKENIZER
    assert [level["used"] for level in table["codebook"]] == [2, 2]
    # Shares 5/6 and 1/6: e to 0.4506.
    assert [level["perplexity"] for level in table["codebook"]] == [1.569193, 1.569193]
    assert table["collisions"] == {
        "images": 1,  # b has one mask twice, c has one
        "images_with_collision": 1,
        "share_of_images": 1.0,
        "masks": 3,
        "masks_in_collision": 2,
        "share_of_masks": 0.666667,
    }
    assert list(table["area"]["classes"].values()) == [1, 0, 4, 1]
    assert table["r_iou"]["mean"] == 0.5
    histogram = table["r_iou"]["histogram"]
    assert (table["r_iou"]["masks"], histogram[0], histogram[10], histogram[19]) == (3, 1, 1, 1)
    assert table["masks_per_image"] == {
        "images": 3,
        "mean": 2.0,
        "median": 2,
        "largest": 3,
        "histogram": {"1": 1, "2": 1, "3-4": 1},
    }


def test_a_dialogues_mask_counts_once(counted: tuple[Path, Result]) -> None:
    values = json.loads(counted[1].stdout)["outputs"][0]
    assert (values["form"], values["images"], values["samples"], values["masks"]) == ("shards", 3, 4, 3)
    assert values["masks_per_image"]["histogram"] == {"1": 1, "2": 1}
    assert values["collisions"]["images_with_collision"] == 1
    assert values["collisions"]["masks_in_collision"] == 2
    assert values["r_iou"] == {"masks": 2, "mean": 0.375, "histogram": [0] * 5 + [1] + [0] * 4 + [1] + [0] * 9}
    assert values["rejects"] == {}


def test_views_of_an_image_do_not_collide(tmp_path: Path) -> None:
    """A word in one picture is no other mask's in another picture; the masks are one image's all the same."""
    output = begun(tmp_path, "gres", "val", "shards")
    near = mask_fields("2", strip(5, 10), (0, 0), None, view="crop-1")
    output.finish(FINGERPRINT, [commit(output, 0, pack([sample("s", "a.jpg", FIRST, near)]), 1, 1, 2)])
    figures = count_output(output).figures
    assert (figures.words.images, figures.images_of) == (0, Counter({2: 1}))


def test_a_run_that_is_not_complete_is_counted_as_far_as_it_goes(tmp_path: Path) -> None:
    output = begun(tmp_path, "sa1b", "masks", "table")
    commit(output, 3, table_of(ROWS), 6, 3, 6)
    found = count_output(output)
    assert (found.is_complete, found.totals.units, found.figures.masks) == (False, 1, 6)
    done = stats(tmp_path)
    sentence = "sa1b/masks is not complete: the 1 units that are finished were counted"
    assert sentence in done.stdout.splitlines()
    assert sentence in (tmp_path / PAGE_NAME).read_text()


def test_units_that_are_newer_than_the_manifest_are_counted(out: Path) -> None:
    """Files were added to the source, and the run that reads them has not come to its end."""
    output = SplitOutput(Folder(out), "sa1b", "masks", "table")
    commit(output, 0, table_of(ROWS[:5]), 5, 2, 5)
    commit(output, 2, table_of(ROWS[5:]), 1, 1, 1)
    found = count_output(output)
    assert (found.is_complete, found.totals.units, found.totals.masks, found.figures.masks) == (False, 3, 6, 6)


def test_an_output_without_masks(tmp_path: Path) -> None:
    begun(tmp_path, "sa1b", "masks", "table")
    done = stats(tmp_path)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].split() == ["sa1b/masks", "0", "0", "0", "-", "-"]
    values = json.loads((tmp_path / ".samtok" / "stats.json").read_text())["outputs"][0]
    assert values["masks_per_image"] == {"images": 0, "mean": None, "median": None, "largest": None, "histogram": {}}
    assert values["tokenizer"] == {"name": "", "sha256": "ab" * 32}


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8), rows_of_batch=st.integers(1, 9))
def test_images_are_whole_wherever_batches_end(sizes: list[int], rows_of_batch: int) -> None:
    rows = [
        row(f"s{scene}", at, strip(at, at + 3), (scene % 4, at % 4), at / 16)
        for scene, number in enumerate(sizes)
        for at in range(number)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_table, "BATCH_ROWS", rows_of_batch)
        found = [image for (image,) in table_images(io.BytesIO(table_of(rows) or b""), VOCABULARY)]
    assert [len(image.identities) for image in found] == sizes
    assert np.concatenate([image.codes_nL for image in found]).tolist() == [list(one.codes) for one in rows]
    assert [identity for image in found for identity in image.identities] == [one.rle.counts.encode() for one in rows]
    assert np.concatenate([image.ious_n for image in found]).tolist() == [one.iou for one in rows]
    assert {int(pixels) for image in found for pixels in image.pixels_n} == {100}


def view(areas: list[int], pixels: int = 10**7) -> ViewMasks:
    number = len(areas)
    return ViewMasks(
        list(range(number)),
        np.zeros((number, 2), np.int64),
        np.array(areas, np.int64),
        np.full(number, pixels, np.int64),
        np.full(number, np.nan),
    )


def test_parts_of_the_area_histogram_begin_with_their_lower_edge() -> None:
    assert len(AREA_EDGES) == 25
    areas = [1, 10, 17, 18, 999, 1000, 10**7 - 1, 10**7]
    figures = Figures(4, 2)
    figures.add([view(areas)])
    expected = Counter({0: 3, 1: 1, 7: 1, 8: 1, 23: 2})
    assert {part: int(number) for part, number in enumerate(figures.areas_B) if number} == expected
    assert sum(figures.classes_C) == len(areas)
    assert figures.mean_iou is None


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 8, 9, 1024, 1025])
def test_classes_of_images_end_with_powers_of_two(number: int) -> None:
    figures = Figures(4, 2)
    figures.add([view([1] * number)])
    ((name, images),) = ((name, images) for name, images in figures.image_classes.items() if images)
    first, _, last = name.partition("-")
    assert images == 1
    assert int(first) <= number <= int(last or first) < 2 * number
    assert list(figures.image_classes)[:3] == ["1", "2", "3-4"][: len(figures.image_classes)]


def test_the_median_is_that_of_all_images() -> None:
    figures = Figures(4, 2)
    for number in (1, 1, 7, 9, 30):
        figures.add([view([1] * number)])
    assert (figures.median_per_image, figures.masks_per_image) == (7, 9.6)


@given(area=st.integers(1, 2000), factor=st.sampled_from([1, 10, 100, 1000]))
def test_size_classes_are_those_of_the_evaluation(area: int, factor: int) -> None:
    figures = Figures(4, 2)
    figures.add([view([area], area * factor)])
    rle = strip(0, area, area * factor)
    assert int(figures.classes_C.argmax()) == size_class(rle) < len(SIZE_CLASSES)


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_text_for_a_terminal_and_the_same_files_again(counted: tuple[Path, Result]) -> None:
    out, _ = counted
    files = [out / ".samtok" / "stats.json", out / PAGE_NAME]
    before = [file.read_bytes() for file in files]
    done = stats(out)
    assert [file.read_bytes() for file in files] == before
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[:3] == [
        "output      images  masks  rejects  per image  r-IoU",
        "gres/val         3      3        0        1.5  0.375",
        "sa1b/masks       3      6        1        2.0  0.500",
    ]
    assert "sa1b/masks: 2 of 4 used, perplexity 2; 2 of 4 used, perplexity 2" in lines
    assert (
        "sa1b/masks: two masks with one word in 100.0 % of 1 images with two masks or more (66.7 % of their masks)"
        in lines
    )
    assert "rejected in sa1b/masks: 1 image-missing" in lines
    assert lines[-1] == f"output: {out}/stats.html, {out}/.samtok/stats.json"


def test_one_output_can_be_given(out: Path) -> None:
    assert stats(out / "sa1b" / "masks").exit_code == 0
    values = json.loads((out / "sa1b" / "masks" / ".samtok" / "stats.json").read_text())
    assert [one["name"] for one in values["outputs"]] == ["sa1b/masks"]
    assert len(find_outputs(str(out))) == 2


class Page(HTMLParser):
    """Gathers texts, names and addresses; holds that names are unique."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += (value or "" for name, value in attrs if name == "id")
        self.addresses += (value or "" for name, value in attrs if name in ("src", "href", "xlink:href"))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_page_says_the_figures_and_needs_nothing_beside_it(counted: tuple[Path, Result]) -> None:
    text = (counted[0] / PAGE_NAME).read_text()
    page = Page(text)
    assert page.tags.count("svg") == 10  # sizes, masks of an image, r-IoU and two levels, of two outputs
    assert [address for address in page.addresses if not address.startswith("#")] == []
    assert not re.search(r"url\((?!#)|@import|<script|<link|<iframe", text)
    for said in (
        "gres/val",
        "sa1b/masks",
        "66.7 %",
        "image-missing",
        "0.500",
        "0.375",
        "masks of an image, up to",
        "0.0001 %",
        "100 %",
    ):
        assert said in page.texts, said
    for chart in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert "var(--first)" in chart
        assert not re.search(r"#0[123]0[234]0[345]|#000000|: ?black", chart)


def test_a_hostile_name_is_text(tmp_path: Path) -> None:
    output = begun(tmp_path, "sa1b", "masks", "table")
    output.dataset = HOSTILE
    from pipelines.stats.page import html

    text = html([count_output(output)])
    assert "<img" not in text
    assert any(HOSTILE in data for data in Page(text).texts)


# --- what cannot be counted -------------------------------------------------------------------------------------------


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    done = stats(tmp_path)
    assert (done.exit_code, done.stderr.strip()) == (
        1,
        f"Error: {tmp_path}: no run of samtok-data lies here; give the --out of a tokenize run",
    )
    assert list(tmp_path.iterdir()) == []


def damage(path: Path, change: Any) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("sa1b/masks/sa1b-masks-000000.parquet", lambda data: data[:-5], "the Parquet file is cut or damaged: "),
        (
            "sa1b/masks/sa1b-masks-000000.parquet",
            lambda _data: table_of(ROWS[:5]),
            "6 masks in its entry, 5 in the file",
        ),
        ("gres/val/gres-val-000000.tar", lambda data: data[:700], "the tar file is cut"),
        ("gres/val/gres-val-000000.tar", lambda _data: pack(SHARD[:1]), "3 masks in its entry, 1 in the file"),
        (
            "gres/val/gres-val-000000.tar",
            lambda _data: pack([sample("s", "a.jpg", {"view": "image", "region": "1"})]),
            r"a record is damaged: KeyError\('rle'\)",
        ),
        (
            "gres/val/gres-val-000000.tar",
            lambda _data: pack([sample("s", "a.jpg", {**FIRST, "codes": [0, 4]})]),
            r"expected codes in 0..3, got some in 0..4",
        ),
        (
            "gres/val/gres-val-000000.tar",
            lambda _data: pack([sample("s", "a.jpg", {**FIRST, "area": 0})]),
            "a mask's area is not in 1 .. height times width",
        ),
        (
            "gres/val/gres-val-000000.tar",
            lambda _data: pack([sample("s", "a.jpg", {**FIRST, "iou": 1.5})]),
            r"a mask's IoU is not in 0..1",
        ),
        ("gres/val/.samtok/manifest.json", lambda data: data[:-9], "gres/val: the manifest is damaged"),
        ("gres/val/.samtok/run.json", lambda data: data.replace(b"depth", b"deep"), "gres/val: the run file does not"),
    ],
)
def test_a_damaged_output_is_named_and_nothing_is_written(out: Path, place: str, change: Any, message: str) -> None:
    damage(out / place, change)
    with pytest.raises(SetupError, match=message):
        [count_output(output) for output in find_outputs(str(out))]
    assert stats(out).exit_code == 1
    assert not (out / PAGE_NAME).exists()


def test_a_file_that_is_gone_is_named(out: Path) -> None:
    (out / "gres/val/gres-val-000000.tar").unlink()
    done = stats(out)
    assert done.exit_code == 1
    assert f"{out}/gres/val/gres-val-000000.tar: " in done.stderr
    assert "'samtok-data verify' says all that is wrong" in done.stderr


def test_samples_of_an_image_need_not_stand_together() -> None:
    folder = Folder("memory://stats")
    folder.write("a.tar", pack(SHARD))
    sizes = [[len(one.identities) for one in image] for image in shard_images(folder, "a.tar", VOCABULARY)]
    assert sizes == [[2], [1]]
