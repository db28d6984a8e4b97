"""How fast the tokenising path is, on the machine that runs this: one command a question, a table and JSON each.

    python -m benchmarks.speed data --kind sa1b --images 20000 --root DIR      makes a dataset once, for many runs
    python -m benchmarks.speed sa1b --root DIR --tokenizer FILE --precision fp16 --out FILE.json
    python -m benchmarks.speed PART --help

``benchmarks.large_weights`` makes weights of the published size, where the published ones cannot be had.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks.speed_parts import data as made
from benchmarks.speed_parts import report
from benchmarks.speed_parts.command import RunSettings

# Heavy packages (torch, ray) are imported in the parts that need them: processes that make data begin with this file.

OUT = click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures as JSON.")
TOKENIZER = click.option("--tokenizer", default="small", show_default=True, help="As of samtok-data tokenize.")
PRECISION = click.option("--precision", default="fp32", show_default=True, help="As of samtok-data tokenize.")
ROOT = click.option("--root", type=click.Path(file_okay=False, path_type=Path), help="Of data; made if not there.")
DEVICE = click.option("--device", type=click.Choice(["cpu", "cuda"]), help="A GPU where there is one, if left away.")
MORE = click.option("--run-option", "more", multiple=True, help="A word for samtok-data tokenize; may be repeated.")
DISTINCT = click.option("--distinct", default=64, show_default=True, help="Different pictures among the images.")
PER_TAR = click.option("--images-per-tar", default=200, show_default=True, help="Of SA-1B.")
SECONDS = click.option("--published-seconds", default=20.0, show_default=True, help="For each batch; 0: leave it out.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Measures the speed of the tokenising path."""


@main.command()
@click.option("--kind", type=click.Choice(["sa1b", "gres"]), required=True)
@click.option("--images", default=20_000, show_default=True)
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), required=True)
@DISTINCT
@PER_TAR
@click.option("--tars-written", default=0, help="The other tars are links to these; 0: all are written.")
@click.option("--height", type=int, help="Of the pictures, pixels; the kind's own if left away.")
@click.option("--width", type=int)
@click.option("--masks", type=int, help="Of each image of SA-1B.")
@click.option("--processes", type=int, help="That write; one a core if left away.")
def data(kind: made.Kind, images: int, root: Path, processes: int | None, **given: Any) -> None:
    """Makes a dataset in ROOT: SA-1B's tars or a folder of gRefCOCO."""
    fields = {name: value for name, value in given.items() if value is not None}
    made.make(made.of_kind(kind, images, **fields), root, processes=processes)


@main.command()
@click.option("--images", default=2_000, show_default=True, help="To make, where ROOT holds none.")
@click.option("--masks-per-image", type=int, help="Drawn from the hundred of each image; all if left away.")
@ROOT
@TOKENIZER
@PRECISION
@DEVICE
@DISTINCT
@PER_TAR
@SECONDS
@MORE
@OUT
def sa1b(images: int, images_per_tar: int, distinct: int, **options: Any) -> None:
    """Files to Parquet: 1500x2250, 100 masks an image."""
    wanted = made.of_kind("sa1b", images, images_per_tar=images_per_tar, distinct=distinct)
    _files_to_files(wanted, "sa1b", **options)


@main.command()
@click.option("--images", default=2_000, show_default=True, help="To make, where ROOT holds none.")
@ROOT
@TOKENIZER
@PRECISION
@DEVICE
@DISTINCT
@SECONDS
@MORE
@OUT
def gres(images: int, distinct: int, **options: Any) -> None:
    """Files to shards: 640x480, 4 masks and 12 sentences an image."""
    _files_to_files(made.of_kind("gres", images, distinct=distinct), "gres", masks_per_image=None, **options)


def _files_to_files(
    wanted: made.Data,
    part: str,
    *,
    root: Path | None,
    tokenizer: str,
    precision: str,
    masks_per_image: int | None,
    device: str | None,
    published_seconds: float,
    more: tuple[str, ...],
    out: Path | None,
) -> None:
    from benchmarks.speed_parts.density import against_published, data_at, files_to_files

    place = device_of(device)
    settings = RunSettings(
        tokenizer=tokenizer, precision=precision, masks_per_image=masks_per_image, more=_with_device(more, place)
    )
    with data_at(root, wanted) as (found, where, folder):
        figures, _ = files_to_files(found, where, folder, settings)
        report.show_figures(f"{part}: {found.images:,} images, {tokenizer}, {precision}", figures)
        report.show([{"process": name, "cores": cores} for name, cores in figures["cores_by_process"].items()])
        report.write(out, part, {"run": figures})  # what follows may be cut short by a limit of time
        if published_seconds:
            published = against_published(figures, found, where, settings, device=place, seconds=published_seconds)
            print("the published way, on the same files with the same weights")
            report.show(published["ways"])
            report.write(out, part, {"run": figures, "published": published})


@main.command()
@TOKENIZER
@click.option("--precision", "precisions", multiple=True, help="Paths of the run's own to measure; may be repeated.")
@DEVICE
@click.option("--images", default=16, show_default=True, help="To measure the processor's stages with.")
@click.option("--part", type=click.Choice(["all", "device", "processor"]), default="all", show_default=True)
@OUT
def stages(
    tokenizer: str, precisions: tuple[Any, ...], device: str | None, images: int, part: str, out: Path | None
) -> None:
    """Stages alone, against what the device can do; and what each costs a processor core."""
    from tokenizer_model import identify_tokenizer

    place, figures = device_of(device), {}
    if part != "processor":
        from benchmarks.speed_parts.device_stages import device_stages

        figures = device_stages(tokenizer, precisions, place, is_small=place == "cpu")
        report.show_figures(f"limits of {place}", figures["limits"])
        report.show(figures["stages"])
        report.write(out, "stages", {"tokenizer": tokenizer, **figures})
    if part != "device":
        from benchmarks.speed_parts.cpu_stages import cpu_stages

        config = identify_tokenizer(tokenizer).config
        kinds: tuple[made.Kind, ...] = ("sa1b", "gres")
        figures["processor"] = [row for kind in kinds for row in cpu_stages(kind, config, images=images)]
        report.show(figures["processor"])
    report.write(out, "stages", {"tokenizer": tokenizer, **figures})


@main.command()
@click.option("--images", default=4_000, show_default=True, help="To make, where ROOT holds none.")
@ROOT
@TOKENIZER
@PRECISION
@DISTINCT
@PER_TAR
@MORE
@OUT
def gpus(
    images: int,
    root: Path | None,
    tokenizer: str,
    precision: str,
    distinct: int,
    images_per_tar: int,
    more: tuple[str, ...],
    out: Path | None,
) -> None:
    """The files of ``sa1b`` on one GPU, and on all of the machine."""
    from benchmarks.speed_parts.density import data_at
    from benchmarks.speed_parts.scaling import on_gpus

    settings = RunSettings(tokenizer=tokenizer, precision=precision, more=more)
    wanted = made.of_kind("sa1b", images, distinct=distinct, images_per_tar=images_per_tar)
    with data_at(root, wanted) as (found, where, folder):
        figures = on_gpus(found, where, folder, settings, len(report.gpus()))
    shown = ("gpus", "masks_per_second", "command_masks_per_second", "span_masks_per_second", "gpu_busy_percent")
    report.show([{name: run[name] for name in shown} for run in figures["runs"]])
    report.show_figures("ratios", figures)
    report.write(out, "gpus", figures)


@main.command()
@click.option("--images", default=64, show_default=True, help="Of the smallest run.")
@click.option("--doublings", default=4, show_default=True, help="Of the images.")
@click.option("--masks", type=int, multiple=True, default=(1, 10, 100, 400), show_default=True, help="Of an image.")
@click.option("--height", default=1500, show_default=True, help="Of the middle size, pixels.")
@click.option("--width", default=2250, show_default=True)
@TOKENIZER
@PRECISION
@DEVICE
@DISTINCT
@PER_TAR
@MORE
@OUT
def growth(
    images: int, doublings: int, masks: tuple[int, ...], device: str | None, out: Path | None, **given: Any
) -> None:
    """Time and memory as images, masks of an image, and pixels of an image grow."""
    import tempfile

    from benchmarks.speed_parts.scaling import growth as grown

    more = _with_device(given.pop("more"), device_of(device))
    settings = RunSettings(tokenizer=given.pop("tokenizer"), precision=given.pop("precision"), more=more)
    with tempfile.TemporaryDirectory() as folder:
        figures = grown(made.of_kind("sa1b", images, **given), Path(folder), settings, doublings, masks)
    for name, rows in figures.items():
        print(f"more {name}")
        report.show(rows)
    report.write(out, "growth", {"tokenizer": settings.tokenizer, "precision": settings.precision, **figures})


@main.command()
@click.option("--kind", type=click.Choice(["sa1b", "gres"]), default="sa1b", show_default=True)
@click.option("--images", default=64, show_default=True, help="To make, where ROOT holds none.")
@click.option("--runs", default=3, show_default=True)
@ROOT
@TOKENIZER
@PRECISION
@DEVICE
@DISTINCT
@click.option("--images-per-tar", default=8, show_default=True, help="Of SA-1B.")
@MORE
@OUT
def startup(
    kind: made.Kind,
    images: int,
    runs: int,
    root: Path | None,
    tokenizer: str,
    precision: str,
    device: str | None,
    distinct: int,
    images_per_tar: int,
    more: tuple[str, ...],
    out: Path | None,
) -> None:
    """From the command to the first finished unit, by what was there when."""
    from benchmarks.speed_parts.density import data_at
    from benchmarks.speed_parts.scaling import startup as started

    settings = RunSettings(tokenizer=tokenizer, precision=precision, more=_with_device(more, device_of(device)))
    wanted = made.of_kind(kind, images, distinct=distinct, images_per_tar=images_per_tar)
    with data_at(root, wanted) as (found, where, _):
        rows = started(found, where, settings, runs)
    report.show(rows)
    print("the last run's processes, seconds after the command")
    report.show(rows[-1]["processes"])
    report.write(out, "startup", {"tokenizer": tokenizer, "precision": precision, "runs": rows})


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@OUT
def projection(files: tuple[Path, ...], out: Path | None) -> None:
    """GPU-hours of 209 million masks, from FILES that the part sa1b wrote."""
    from benchmarks.speed_parts.summing import projection as projected

    rows = projected(files)
    report.show(rows)
    report.write(out, "projection", {"files": [file.name for file in files], "rows": rows})


@main.command()
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default="samples/gres", show_default=True)
@click.option("--runs", default=3, show_default=True, help="Of the command; the fastest counts.")
@TOKENIZER
@OUT
def cpu(root: Path, runs: int, tokenizer: str, out: Path | None) -> None:
    """The tokenising part of ``make demo`` beside the published way, on this machine's processor."""
    from benchmarks.speed_parts.summing import demo

    figures = demo(root, tokenizer, runs)
    report.show_figures(f"{root}, {tokenizer}", figures)
    print("processes of the fastest run, seconds after the command; its units were finished after", end=" ")
    print(", ".join(map(str, figures["units_finished_s"])))
    report.show(figures["processes"])
    report.write(out, "cpu", {"tokenizer": tokenizer, **figures})


@main.command()
@click.option("--kind", default="sa1b", show_default=True, help="Of the mask source, or coco128.")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help="Of the source; sa1b is made without.")
@click.option("--option", "given", multiple=True, help="NAME=VALUE of the mask source, as of samtok-data tokenize.")
@click.option("--images", type=int, help="At most so many.")
@TOKENIZER
@click.option("--precision", "precisions", multiple=True, help="Of the run's own paths; may be repeated.")
@DEVICE
@DISTINCT
@OUT
def drift(
    kind: str,
    root: Path | None,
    given: tuple[str, ...],
    images: int | None,
    tokenizer: str,
    precisions: tuple[Any, ...],
    device: str | None,
    distinct: int,
    out: Path | None,
) -> None:
    """Masks whose words differ from those of fp32 on the plain path, by path and margin."""
    from benchmarks.speed_parts import drift as drifting
    from benchmarks.speed_parts.density import data_at
    from pipelines.config import read_options

    place = device_of(device)
    if kind == "sa1b" and (root is None or (root / made.DESCRIPTION).exists()):
        with data_at(root, made.of_kind("sa1b", distinct, distinct=distinct, images_per_tar=distinct)) as found:
            figures = drifting.measure(tokenizer, drifting.made_images(*found[:2], images), precisions, place)
    elif kind == "coco128" and root is not None:
        figures = drifting.measure(tokenizer, drifting.coco128_images(root, images), precisions, place)
    elif root is None:
        raise click.UsageError(f"--root: where the files of {kind} are")
    else:
        wanted = drifting.images_of(read_options(given), kind, root, images)
        figures = drifting.measure(tokenizer, wanted, precisions, place)
    report.show(figures["paths"])
    report.write(out, "drift", {"kind": kind, "tokenizer": tokenizer, **figures})


def device_of(device: str | None) -> str:
    """The device that was asked for, or a GPU where there is one."""
    return device or ("cuda" if report.gpus() else "cpu")


def _with_device(more: tuple[str, ...], device: str) -> tuple[str, ...]:
    """Options of the command, with none of a machine's GPUs where the processor is to be measured."""
    return (*more, "--num-gpus-per-actor", "0") if device == "cpu" and report.gpus() else more


if __name__ == "__main__":
    main()
