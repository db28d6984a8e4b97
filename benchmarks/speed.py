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


def device_of(device: str | None) -> str:
    """The device that was asked for, or a GPU where there is one."""
    return device or ("cuda" if report.gpus() else "cpu")


def _with_device(more: tuple[str, ...], device: str) -> tuple[str, ...]:
    """Options of the command, with none of a machine's GPUs where the processor is to be measured."""
    return (*more, "--num-gpus-per-actor", "0") if device == "cpu" and report.gpus() else more


if __name__ == "__main__":
    main()
