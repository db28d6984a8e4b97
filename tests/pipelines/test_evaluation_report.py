"""The whole evaluation: what is written, what it says, and what happens where something is wrong."""

from __future__ import annotations

import errno
import io
import json
import re
import weakref
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from converters.masks.source import MaskedImage, MaskSource
from pipelines import progress
from pipelines.cli import main
from pipelines.evaluation import evaluate as evaluation
from pipelines.evaluation.evaluate import EvaluationConfig, evaluate
from pipelines.evaluation.progress import SourceProgress
from pipelines.evaluation.rejects import RejectLog
from pipelines.evaluation.report import Report, report_table
from samtok_data.errors import RecordError, SetupError
from samtok_data.rejects import Reject
from samtok_data.storage import Folder
from tests.pipelines.evaluation_fakes import FakeSource, FakeTokenizer, box, grey, masked_image, source_of
from tokenizer_model import open_tokenizer, save_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

HOSTILE = """<img src=x onerror="alert('1')">&amp;.png"""
SMALL_BOX, LARGE_BOX = box(48, 64, 4, 4, 12, 12), box(48, 64, 8, 8, 56, 40)


Mixes = dict[str, list[MaskSource]]


def fake(patch: pytest.MonkeyPatch) -> Mixes:
    """Mixes by name, to be filled, and a fake tokenizer instead of a network."""
    mixes: Mixes = {}

    def open_sources(mix: str, _out: Folder) -> list[tuple[MaskSource, float]]:
        return [(source, 1.0) for source in mixes[mix]]

    patch.setattr(evaluation, "open_sources", open_sources)
    patch.setattr(evaluation, "open_tokenizer", lambda *_args, **_options: FakeTokenizer(side=16))
    return mixes


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Mixes:
    return fake(monkeypatch)


def run(out: Path, mix: str = "mix", **options: Any) -> tuple[Report, dict[str, Any]]:
    report = evaluate(EvaluationConfig(mix=mix, out=str(out), tokenizer="fake", device="cpu", **options))
    return report, json.loads((out / "report.json").read_text())


def two_sources() -> list[MaskSource]:
    return [
        source_of("one", masked_image(SMALL_BOX, LARGE_BOX, name="a"), masked_image(LARGE_BOX, name=HOSTILE)),
        source_of("two", masked_image(SMALL_BOX, name="b")),
    ]


def training() -> list[MaskSource]:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 20, (300, 2)), rng.integers(24, 48, (300, 2))
    rles = [box(48, 64, x0, y0, x1, y1) for (x0, y0), (x1, y1) in zip(*corners, strict=True)]
    return [source_of("training", *(masked_image(rle, name=str(place)) for place, rle in enumerate(rles)))]


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_report_has_the_figures_of_every_source(faked: Mixes, tmp_path: Path) -> None:
    faked["mix"] = two_sources()
    report, values = run(tmp_path)
    assert values["measured"]["all"]["masks"] == 4
    assert list(values["measured"]["by_source"]) == ["one", "two"]
    assert values["measured"]["by_source"]["two"]["by_size"]["0.01-0.1"]["masks"] == 1
    assert values["measured"]["all"]["r_iou"] == round(report.measurement.mean() or 0, 6) > 0.9
    assert values["tokenizer"]["name"] == "fake"
    assert values["settings"]["seed"] == 0
    assert values["sources"]["one"]["settings"] == {"kind": "fake"}
    assert values["baseline"] is None


def test_two_runs_write_the_same_bytes(faked: Mixes, tmp_path: Path) -> None:
    faked.update(mix=two_sources(), training=training())
    for name in ("first", "second"):
        run(tmp_path / name, baseline_mix="training")
    for name in ("report.json", "index.html"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_image_blind_codebook_is_measured_on_the_same_masks(faked: Mixes, tmp_path: Path) -> None:
    faked.update(mix=two_sources(), training=training())
    _, values = run(tmp_path, baseline_mix="training")
    assert 0.3 < values["measured"]["all"]["baseline"] <= 1
    assert values["measured"]["by_source"]["two"]["by_size"]["0.01-0.1"]["baseline"] is not None
    blind = values["baseline"]
    assert (blind["rows"], blind["levels"], blind["side"], blind["masks"], blind["masks_seen"]) == (
        256,
        2,
        64,
        300,
        300,
    )
    assert blind["sources"] == {"training": {"kind": "fake"}}
    assert blind["collisions"]["images"] == 1
    text = (tmp_path / "index.html").read_text()
    assert "2 levels of 256 rows" in text
    assert f"{values['measured']['all']['baseline']:.3f}" in text


def test_without_training_masks_nothing_is_said_of_the_blind_codebook(faked: Mixes, tmp_path: Path) -> None:
    faked["mix"] = two_sources()
    _, values = run(tmp_path)
    assert "baseline" not in values["measured"]["all"]
    assert "image-blind" not in (tmp_path / "index.html").read_text()


def test_a_limit_counts_images_of_each_source(faked: Mixes, tmp_path: Path) -> None:
    read: list[int] = []

    def unit(place: int) -> Iterator[MaskedImage | Reject]:
        read.append(place)
        yield masked_image(LARGE_BOX, name=str(place))

    many = FakeSource("many", [lambda place=place: unit(place) for place in range(50)])
    faked["mix"] = [many, *two_sources()]
    report, values = run(tmp_path, limit=7)
    assert [report.measurement.num_images(name) for name in ("many", "one", "two")] == [7, 2, 1]
    assert max(read) == 6
    assert values["settings"]["limit"] == 7
    assert "the first 7 images" in (tmp_path / "index.html").read_text()


def test_a_source_of_a_thousand_images_is_not_held(faked: Mixes, tmp_path: Path) -> None:
    alive = most = 0

    def freed() -> None:
        nonlocal alive
        alive -= 1

    def opened() -> Image.Image:
        nonlocal alive, most
        picture = grey(48, 64)
        weakref.finalize(picture, freed)
        alive += 1
        most = max(most, alive)
        return picture

    units = [
        lambda place=place: iter([masked_image(LARGE_BOX, name=str(place), opened=opened)]) for place in range(1000)
    ]
    faked["mix"] = [FakeSource("many", units)]
    report, _ = run(tmp_path)
    assert report.measurement.num_images() == 1000
    assert 1 < most < 60


# --- the page ---------------------------------------------------------------------------------------------------------

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Holds that tags are closed in order and names are unique; gathers texts and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._look(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._look(attrs)

    def _look(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.addresses.append(value or "")
            elif name.startswith("on"):
                self.handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def pictures(self) -> Iterator[bytes]:
        import base64

        for address in self.addresses:
            if address.startswith("data:image/jpeg;base64,"):
                yield base64.b64decode(address.partition(",")[2], validate=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Mapping[str, Any], str]:
    out = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        fake(patch).update(mix=two_sources(), training=training())
        _, values = run(out, baseline_mix="training")
    text = (out / "index.html").read_text(encoding="utf-8")
    return Page(text), values, text


def test_the_page_says_the_figures(page: tuple[Page, Mapping[str, Any], str]) -> None:
    parsed, values, _ = page
    texts = [text.strip() for text in parsed.texts]
    everything = values["measured"]["all"]
    for variant in ("r_iou", "r_iou_at_0", "unquantised", "ceiling_own", "ceiling_256", "baseline"):
        assert f"{everything[variant]:.3f}" in texts
    for name in ("one", "two", "0.1 to 1 %", "10 % and above", "fake", "Worst", "Drawn by lot"):
        assert any(name in text for text in texts), name
    assert parsed.tags.count("svg") == 3  # r-IoU and two levels


def test_the_page_needs_nothing_beside_it(page: tuple[Page, Mapping[str, Any], str]) -> None:
    parsed, _, text = page
    assert parsed.addresses
    outside = [address for address in parsed.addresses if not address.startswith(("data:image/jpeg;base64,", "#"))]
    assert outside == []
    assert not re.search(r"url\((?!#)|@import|<script|<link|<iframe", text)
    for name in re.findall(r"url\(#([^)]+)\)", text):
        assert name in parsed.ids


def test_the_pictures_of_the_page_can_be_seen(page: tuple[Page, Mapping[str, Any], str]) -> None:
    parsed, _, _ = page
    pictures = list(page[0].pictures())
    assert len(pictures) == 2 * (2 + 2 + 3 + 1 + 1 + 1)  # best, worst and random of two sources
    for data in pictures:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            assert picture.size in ((400, 300), (300, 300))  # all of a photo, or near a small mask
    assert parsed.tags.count("img") == len(pictures)


def test_a_hostile_name_is_text(page: tuple[Page, Mapping[str, Any], str]) -> None:
    parsed, _, text = page
    assert "<img src=x" not in text
    assert parsed.handlers == []
    assert any(HOSTILE in data for data in parsed.texts)


def test_charts_take_the_pages_colours(page: tuple[Page, Mapping[str, Any], str]) -> None:
    _, _, text = page
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 3
    for chart in charts:
        assert "var(--first)" in chart
        assert "currentColor" in chart
        assert not re.search(r"#0[123]0[234]0[345]|#000000|: ?black", chart)


# --- what cannot be measured ------------------------------------------------------------------------------------------


def broken(name: str) -> MaskedImage:
    def opened() -> Image.Image:
        raise RecordError("image-unreadable", f"{name}: is no image")

    return masked_image(LARGE_BOX, SMALL_BOX, name=name, file=f"{name}.png", opened=opened)


def test_rejects_are_counted_and_listed(faked: Mixes, tmp_path: Path) -> None:
    lost = Reject("m7", "mask-empty", "no foreground pixel", {"id": 7})
    faked["mix"] = [source_of("one", broken("x"), masked_image(LARGE_BOX), lost, broken("y"))]
    report, values = run(tmp_path)
    rejects = values["sources"]["one"]["rejects"]
    assert rejects["number"] == 3
    assert rejects["by_reason"] == {"image-unreadable": 2, "mask-empty": 1}
    assert sorted(entry["key"] for entry in rejects["listed"]) == ["m7", "x", "y"]
    assert {"image": "x.png", "masks": 2} in [entry["record"] for entry in rejects["listed"]]
    assert report.measurement.num_masks() == 1
    assert "2 image-unreadable, 1 mask-empty" in (tmp_path / "index.html").read_text()
    assert "rejected in one: 2 image-unreadable, 1 mask-empty" in report_table(report, "OUT")


def test_records_that_are_no_json_spoil_no_report(faked: Mixes, tmp_path: Path) -> None:
    odd = Reject("\ud800", "record-invalid", "half a \ud800", {"value": np.int64(3)})
    faked["mix"] = [source_of("one", odd, masked_image(LARGE_BOX, name="\ud800"))]
    _, values = run(tmp_path)
    assert values["sources"]["one"]["rejects"]["listed"][0]["record"] == {"value": "3"}
    assert "\\ud800" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_list_of_rejects_has_an_end_and_the_count_has_none() -> None:
    log = RejectLog(most_listed=2)
    for number in range(5):
        log.add(Reject(str(number), "mask-empty", "none", None))
    log.add(Reject("z", "image-missing", "none", None))
    assert len(log) == 6
    assert log.by_reason == {"mask-empty": 5, "image-missing": 1}
    assert [entry["key"] for entry in log.json["listed"]] == ["0", "1"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            source_of("bare", Reject("a", "mask-empty", "none", None)),
            "source bare: it has no mask; rejects: 1 mask-empty",
            id="no mask",
        ),
        pytest.param(FakeSource("bare", [lambda: iter(())]), "source bare: it has no mask$", id="nothing"),
        pytest.param(
            source_of("bare", broken("x"), broken("y")),
            "source bare: no image with masks can be opened; rejects: 2 image-unreadable",
            id="no picture",
        ),
    ],
)
def test_a_source_without_masks_is_named(faked: Mixes, tmp_path: Path, source: FakeSource, message: str) -> None:
    faked["mix"] = [*two_sources(), source]
    with pytest.raises(SetupError, match=message):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(faked: Mixes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError, match=r"--out .*file/out: cannot be written"):
        run(tmp_path / "file" / "out", mix="never looked up")


def test_a_full_disk_leaves_the_earlier_report(faked: Mixes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faked["mix"] = two_sources()
    run(tmp_path)
    before = (tmp_path / "report.json").read_bytes(), (tmp_path / "index.html").read_bytes()
    written = Folder.write

    def full(folder: Folder, name: str, data: bytes) -> None:
        if data:
            monkeypatch.setattr("os.fsync", no_space)
        written(folder, name, data)

    def no_space(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Folder, "write", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, seed=1)
    assert before == ((tmp_path / "report.json").read_bytes(), (tmp_path / "index.html").read_bytes())


@pytest.mark.parametrize(
    ("option", "message"),
    [({"limit": 0}, "--limit should be at least 1, got 0"), ({"out": ""}, "--out should be a folder")],
)
def test_wrong_settings_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        EvaluationConfig(**{"mix": "m", "out": "o", **option})


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_tells_rates_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with SourceProgress("one (1 of 2)", total=4, unit="image", stream=stream) as shown:
        for _ in range(4):
            now[0] += 20.0
            shown.did()
            shown.add(3)
        shown.num_rejects += 1
    assert stream.getvalue().splitlines() == [
        "one (1 of 2): 1 of 4 images, 0.1 images/s, 0.1 masks/s, 0 rejects, 01:00 left",
        "one (1 of 2): 2 of 4 images, 0.1 images/s, 0.1 masks/s, 0 rejects, 00:40 left",
        "one (1 of 2): 3 of 4 images, 0.1 images/s, 0.1 masks/s, 0 rejects, 00:20 left",
        "one (1 of 2): 4 of 4 images, 0.1 images/s, 0.1 masks/s, 0 rejects",
        "one (1 of 2): 4 of 4 images, 0.1 images/s, 0.1 masks/s, 1 rejects",
    ]


def test_a_bar_reaches_its_end_also_where_the_reader_is_ahead() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with SourceProgress("one", total=3, unit="unit", stream=stream) as shown:
        shown.did(3)
        for _ in range(3):
            shown.add(2)
    last = stream.getvalue().split("\r")[-1]
    assert "3/3" in last
    assert "one: " in last
    assert "masks/s" in last


# --- the command ------------------------------------------------------------------------------------------------------


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["eval-tokenizer", *arguments])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of three images with label maps, and one of many masks to make the codebook of."""
    root = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for folder in ("images", "maps", "training-maps"):
        (root / folder).mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(root / "images" / f"{name}.png")
        labels = np.zeros((48, 64), np.uint8)
        labels[5:40, 5:30], labels[10:20, 40:60] = 1, 2
        Image.fromarray(labels).save(root / "maps" / f"{name}.png")
        Image.fromarray(np.arange(48 * 64).reshape(48, 64).astype(np.int32) // 32).convert("I;16").save(
            root / "training-maps" / f"{name}.png"
        )
    (root / "images" / "b.png").write_bytes((root / "images" / "b.png").read_bytes()[:3000])
    for mix, maps in (("mix", "maps"), ("training", "training-maps")):
        entry = {"kind": "index-png", "root": ".", "name": mix, "images": "images", "masks": maps}
        (root / f"{mix}.yaml").write_text(yaml.safe_dump({"sources": [entry]}))
    return root


def test_the_command_from_files_to_report(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mixes = ("--mix", str(files / "mix.yaml"), "--baseline-mix", str(files / "training.yaml"))
    raw = tmp_path / "raw.safetensors"
    save_tokenizer(open_tokenizer("small"), raw, name="raw", trained=False)
    result = invoke("--tokenizer", str(raw), *mixes, "--out", str(out), "--device", "cpu")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert any(line.split()[:3] == ["mix", "2", "4"] for line in lines)
    assert any(line.startswith("10 % and above") for line in lines)
    assert any(re.match(r"codes: \d+ of 256 used", line) for line in lines)
    assert "rejected in mix: 1 image-unreadable" in result.output
    values = json.loads((out / "report.json").read_text())
    assert values["measured"]["all"]["masks"] == 4
    assert values["tokenizer"]["sha256"]
    page = Page((out / "index.html").read_text())
    assert page.tags.count("svg") == 3
    assert any("The weights of tokenizer 'raw' are not trained" in text for text in page.texts)
    assert sorted(path.name for path in out.iterdir()) == ["index", "index.html", "report.json"]


def test_the_report_can_be_printed(files: Path, tmp_path: Path) -> None:
    arguments = ("--mix", str(files / "mix.yaml"), "--out", str(tmp_path), "--limit", "1", "--json")
    result = CliRunner().invoke(main, ["eval-tokenizer", "--tokenizer", "small", "--device", "cpu", *arguments])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((tmp_path / "report.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mix", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("--mix", "{files}/mix.yaml", "--limit", "0"), "--limit should be at least 1, got 0"),
        (("--mix", "{files}/mix.yaml", "--precision", "bf16", "--device", "cpu"), "precision bf16 needs a CUDA device"),
        (("--mix", "{files}/mix.yaml", "--precision", "fp16", "--device", "cpu"), "precision fp16 needs a CUDA device"),
        (("--mix", "{files}/mix.yaml", "--tokenizer", "none.pth"), "none.pth"),
        (
            ("--mix", "{files}/mix.yaml", "--baseline-mix", "{files}/mix.yaml"),
            "wants at least as many masks, mix have 6",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    files: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = [argument.replace("{files}", str(files)) for argument in arguments]
    result = invoke("--tokenizer", "small", "--out", str(tmp_path), *given)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "report.json").exists()
