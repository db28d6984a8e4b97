"""The command line; see the package."""

from __future__ import annotations

from pathlib import Path

import click

from recipes.small.prepare.build import build_source, check_free, write_collections
from recipes.small.prepare.collection import Collection
from recipes.small.prepare.leaks import check_leaks
from recipes.small.prepare.repositories import check_repositories
from recipes.small.prepare.table import SOURCES, read_sources
from samtok_data.errors import SetupError
from samtok_data.storage import Folder


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--repositories",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the clones, bare or not: <owner>+<name> or <owner>__<name>; what is missing is named.",
)
@click.option("--out", required=True, help="Folder for the data; recipes/small/data is where mix.yaml looks.")
@click.option("--overwrite", is_flag=True, help="Replace the sources that lie in --out.")
@click.option(
    "--sources",
    default=SOURCES,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Another table of sources.",
)
def main(repositories: Path, out: str, overwrite: bool, sources: Path) -> None:
    """Rebuilds the data that the tokenizer `small` was trained and measured on, from clones of public repositories."""
    try:
        different = prepare(repositories, Folder(out), sources, overwrite=overwrite)
    except (SetupError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if different:
        raise click.ClickException(
            f"written, but the masks of {', '.join(different)} are not those that `small` saw: "
            f"other versions of Pillow or pycocotools?"
        )


def prepare(repositories: Path, out: Folder, sources: Path, *, overwrite: bool) -> list[str]:
    """Builds, checks and writes everything.

    Args:
        repositories: folder of the clones.
        out: folder for the data.
        sources: the table.
        overwrite: replace what is there.

    Returns:
        Names of the sources whose masks differ from those in the table.

    Raises:
        SetupError: a repository or commit is missing, the output is there, or a test image is trained on.
    """
    table = read_sources(sources)
    check_free(out, table, overwrite=overwrite)
    check_repositories(repositories, (part for source in table for part in source.parts))
    built: dict[str, Collection] = {}
    for source in table:
        built[source.name] = build_source(source, repositories, [built[name] for name in source.leave_out])
        count = built[source.name]
        click.echo(f"{source.name:>16}  {len(count.seen):5,} images  {count.num_masks:6,} masks")
    highest = check_leaks(image for collection in built.values() for image in collection.seen)
    click.echo(f"no test image among the training images; the most alike correlate to {highest:.3f}")
    write_collections(out, built.values())
    return [source.name for source in table if built[source.name].digest != source.sha256]


if __name__ == "__main__":
    main()
