"""The command line, called in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from pipelines.cli import main


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def tokenize(root: Path, out: Path, *more: str) -> Result:
    usual = ("--dataset", "gres", "--root", str(root), "--out", str(out), "--tokenizer", "small")
    return invoke("tokenize", *usual, "--num-gpus-per-actor", "0", *more)
