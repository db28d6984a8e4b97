"""The command line ``samtok-data``. Options and texts only: the work is in the modules beside it."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pipelines.config import DEFAULT_TOKENIZER, RunConfig, read_config, read_options
from samtok_data.errors import SetupError

# Heavy packages (torch, ray) are imported inside the commands that need them: help answers at once.


class _Group(click.Group):
    """Turns set-up errors into one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SetupError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:  # of the environment, not of the program: a disk, a store or a network fails
            raise click.ClickException(f"{error}. What was finished stays; mend it and run again") from error
        except ModuleNotFoundError as error:
            raise click.ClickException(f"{error}: install the extras, pip install 'samtok-data[run,train]'") from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="samtok-data")
def main() -> None:
    """Turns segmentation datasets into dialogues with mask words, in shards that any trainer reads."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pipelines").setLevel(logging.INFO)


@main.command()
@click.option("--root", help="Show what of each dataset is present under this folder.")
@click.argument("names", nargs=-1)
def datasets(root: str | None, names: tuple[str, ...]) -> None:
    """What is supported: files wanted and where they go, options, licence, published counts."""
    from pipelines.catalogue import describe

    click.echo(describe(names, root))


def _read_config(ctx: click.Context, _param: click.Parameter, path: str | None) -> None:
    if path is not None:
        known = [str(parameter.name) for parameter in ctx.command.params if parameter.expose_value]
        ctx.default_map = {**(ctx.default_map or {}), **read_config(path, known)}


def _read_options(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    return read_options(given)


def _none_if_not_given(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...] | None:
    """Click itself gives no values for an option that may be repeated, also where a file names none."""
    return None if ctx.get_parameter_source(str(param.name)) is ParameterSource.DEFAULT else given


@main.command()
@click.option("--config", is_eager=True, expose_value=False, callback=_read_config, help="YAML file of these options.")
@click.option("--dataset", required=True, help="Which dataset; 'samtok-data datasets' lists them.")
@click.option("--root", required=True, help="Folder or address of the dataset's files.")
@click.option("--out", required=True, help="Folder or address for the shards or tables.")
@click.option("--partition", help="Who cut the splits, e.g. unc, google, umd; the dataset's usual one if left away.")
@click.option("--images-root", help="Where the images lie, if not under --root.")
@click.option(
    "--split",
    multiple=True,
    callback=_none_if_not_given,
    help="May be repeated; 'all' for every one. Default: train; of pixelweb all.",
)
@click.option(
    "--tokenizer",
    default=DEFAULT_TOKENIZER,
    show_default=True,
    help="samtok-256x2 (the published weights), small (embedded, for trials), or a checkpoint's path or address.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    default=None,
    help="Default: fp16 on GPUs, which changes a word in some hundreds or thousands; fp32 on CPUs.",
)
@click.option(
    "--images",
    type=click.Choice(["embed", "reference"]),
    default="embed",
    show_default=True,
    help="Image bytes in the shards, or file names only.",
)
@click.option("--crowd", type=click.Choice(["keep", "skip"]), default="keep", show_default=True, help="Crowd targets.")
@click.option("--wording", help="File of questions and answers instead of the bundled one.")
@click.option("--samples-per-shard", type=int, default=1000, show_default=True, help="Of dialogues.")
@click.option("--images-per-file", type=int, default=1000, show_default=True, help="Of masks; a tar is always a file.")
@click.option(
    "--option", multiple=True, callback=_read_options, help="NAME=VALUE for a source of masks; see the README."
)
@click.option("--limit", type=int, help="Only the first so many images of each split; of tars, of the first tar.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all draws.")
@click.option("--max-reject-rate", type=float, default=0.05, show_default=True, help="Fraction of records, 0 to 1.")
@click.option("--measure-iou", is_flag=True, help="Decode every word again and store its IoU with the mask.")
@click.option("--actors", type=int, help="Processes with the tokenizer; one for each GPU, or CPU, if left away.")
@click.option("--feeders", type=int, help="Processes that read and write for each GPU; by the cores if left away.")
@click.option("--num-gpus-per-actor", type=float, help="1 where there are GPUs, else 0; may be a fraction.")
@click.option("--address", help="Of a running Ray cluster, e.g. auto; Ray starts on this machine if left away.")
@click.option("--overwrite/--resume", default=False, help="Delete an earlier run's output, or go on with it (default).")
@click.option("--retry-images", is_flag=True, help="Of masks: make units again in which images could not be used.")
@click.option("--dry-run", is_flag=True, help="Read the annotations and say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def tokenize(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Annotation files in, shards of dialogues with mask words out; of a source of masks, tables of words."""
    config = RunConfig(**options)
    if dry_run:
        from pipelines.dry_run import preview
        from pipelines.tables import preview_table

        found = preview(config)
        click.echo(json.dumps(found.json, indent=1) if as_json else preview_table(found))
        return
    from pipelines.run import tokenize as run
    from pipelines.tables import summary_table

    try:
        summary = run(config)
    except KeyboardInterrupt as error:
        raise click.ClickException("stopped; finished shards are kept, the same command resumes") from error
    click.echo(json.dumps(summary.json, indent=1) if as_json else summary_table(summary))


@main.command("train-tokenizer")
@click.option("--config", required=True, type=click.Path(dir_okay=False), help="YAML file of the run; see the README.")
@click.option("--out", help="Folder or address of the run, instead of the file's.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes, one a GPU; more than one through Ray Train.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="A GPU where there is one, if left away.")
@click.option("--address", help="Of a Ray cluster to join.")
@click.option("--loaders", type=click.IntRange(min=0), help="Processes that read images, for each worker.")
@click.option("--images-per-pass", type=click.IntRange(min=1), help="Lower it when a GPU's memory is full.")
@click.option("--max-minutes", type=float, help="Stop with a checkpoint after so long; the same command goes on.")
@click.option("--overwrite", is_flag=True, default=None, help="Delete the run that lies in OUT.")
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON.")
def train_tokenizer(config: str, as_json: bool, **given: Any) -> None:
    """Trains a mask tokenizer on mask sources, or goes on with a run that was interrupted."""
    from pipelines.tables import training_text
    from pipelines.training.run import train
    from pipelines.training.settings import read_settings

    settings = read_settings(config, **given)
    try:
        outcome = train(settings)
    except KeyboardInterrupt as error:
        raise click.ClickException("stopped; the same command goes on from the last checkpoint") from error
    click.echo(json.dumps(outcome.json, indent=1) if as_json else training_text(outcome, settings.out))


@main.command("export-tokenizer")
@click.argument("run")
@click.option("--out", required=True, help="File to write: .safetensors, or .pth in the published layout.")
@click.option("--step", default="last", show_default=True, help="Of a checkpoint: a number, last or best.")
@click.option("--name", help="Of the tokenizer; the run's folder name if left away.")
@click.option("--half", is_flag=True, help="16-bit numbers: half the size.")
def export_tokenizer(run: str, out: str, step: str, name: str | None, half: bool) -> None:
    """Writes a checkpoint of the training RUN as a file that --tokenizer takes."""
    from pipelines.training.export import export

    click.echo(export(run, out, step=step, name=name, half=half))


@main.command("eval-tokenizer")
@click.option(
    "--tokenizer", default=DEFAULT_TOKENIZER, show_default=True, help="samtok-256x2, small, or a file's path."
)
@click.option("--mix", required=True, help="YAML file of mask sources; every mask counts once, weights do not.")
@click.option("--out", required=True, help="Folder or address for report.json and index.html.")
@click.option("--baseline-mix", help="Training sources: measure a codebook of their shapes, blind to images, as well.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="A GPU where there is one, if left away.")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "bf16"]), default="fp32", show_default=True)
@click.option("--limit", type=int, help="Only the first so many images of each source.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the pictures shown and of the codebook.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json.")
def eval_tokenizer(as_json: bool, **options: Any) -> None:
    """Measures how well masks survive their words: IoU by source and size, code use, collisions, pictures."""
    from pipelines.evaluation.evaluate import EvaluationConfig, evaluate
    from pipelines.evaluation.report import report_table

    config = EvaluationConfig(**options)
    try:
        report = evaluate(config)
    except KeyboardInterrupt as error:
        raise click.ClickException("stopped; nothing was written") from error
    click.echo(report.text if as_json else report_table(report, config.out))


@main.command()
@click.argument("out")
def verify(out: str) -> None:
    """Reads every byte of OUT again: checksums, samples, words, masks, images, counts."""
    from pipelines.tables import verdict_table
    from pipelines.verify import find_outputs
    from pipelines.verify import verify as check

    verdicts = check(find_outputs(out))
    click.echo(verdict_table(verdicts))
    if any(verdict.problems for verdict in verdicts):
        raise click.ClickException(f"{sum(len(verdict.problems) for verdict in verdicts):,} problems")


@main.command()
@click.argument("out")
@click.option("--json", "as_json", is_flag=True, help="Print stats.json.")
def stats(out: str, as_json: bool) -> None:
    """Counts what lies in OUT: masks, rejects, use of the codes, collisions, sizes, r-IoU; also as OUT/stats.html."""
    from pipelines.stats.report import count_output, stats_table, write_stats
    from pipelines.verify import find_outputs

    try:
        counted = [count_output(output) for output in find_outputs(out)]
    except KeyboardInterrupt as error:
        raise click.ClickException("stopped; nothing was written") from error
    text = write_stats(out, counted)
    click.echo(text if as_json else stats_table(counted, out), nl=not as_json)


@main.command()
@click.argument("shard")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the PNGs.")
@click.option("--tokenizer", help="Of the run that made the shard, if left away.")
@click.option("--images-root", help="Where the images of a shard with --images reference lie.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many samples.")
def decode(shard: str, out: Path, tokenizer: str | None, images_root: str | None, limit: int | None) -> None:
    """Words of SHARD back to masks: one PNG a sample, source masks left, decoded ones right."""
    from pipelines.overlays import decode_shard

    drawn, ious = 0, []
    for decoded in decode_shard(shard, tokenizer=tokenizer, images_root=images_root, limit=limit):
        out.mkdir(parents=True, exist_ok=True)
        decoded.overlay.save(out / f"{decoded.key}.png")
        drawn += 1
        ious += decoded.ious
    mean = f", mean IoU {sum(ious) / len(ious):.3f}" if ious else ""
    click.echo(f"{drawn} overlays of {len(ious)} masks in {out}{mean}")


if __name__ == "__main__":
    main()
