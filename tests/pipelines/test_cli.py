"""The command line as a user meets it: what it prints, what it refuses, and with which sentence."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from pipelines.cli import main
from pipelines.run import Summary
from tests.converters.grefs import annotation, image, ref, write_gres, write_refer
from tests.pipelines.commands import invoke, tokenize
from tokenizer_model import open_tokenizer, save_tokenizer


def small_folder(root: Path) -> Path:
    refs = [ref(1, 1, [1], ["a", "b"]), ref(2, 1, [])]
    return write_gres(root, images=[image(1)], annotations=[annotation(1, 1)], refs=refs)


# --- what a user sees ------------------------------------------------------------------------------------------------


def test_help_answers_without_torch_and_ray() -> None:
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom pipelines.cli import main\n"
        "assert CliRunner().invoke(main, ['tokenize', '--help']).exit_code == 0\n"
        "assert CliRunner().invoke(main, ['datasets']).exit_code == 0\n"
        "print([name for name in ('torch', 'ray', 'sam2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


OPTIONS = """
    --actors --address --config --crowd --dataset --dry-run --help --images --images-root --json --limit
    --max-reject-rate --measure-iou --num-gpus-per-actor --out --overwrite --partition --precision --resume --root
    --samples-per-shard --seed --split --tokenizer --wording --images-per-file --option --retry-images
    --feeders
"""


def test_the_options_of_tokenize_are_these() -> None:
    command = main.commands["tokenize"]
    with command.make_context("tokenize", [], resilient_parsing=True) as context:
        names = {name for parameter in command.get_params(context) for name in parameter.opts}
        names |= {name for parameter in command.get_params(context) for name in parameter.secondary_opts}
    assert {name for name in names if name.startswith("--")} == set(OPTIONS.split())


def test_datasets_says_what_is_present(bundled: Path) -> None:
    text = invoke("datasets", "--root", str(bundled)).output
    assert "gres: gRefCOCO (GRES) (referring-segmentation)" in text
    assert "present  grefcoco/grefs(unc).json" in text
    assert "missing  refcoco/refs(unc).p" in text
    assert "train 209,344, val 16,870, testA 18,712, testB 14,933" in text
    assert "licence: " in text
    assert "RefCLEF" not in invoke("datasets", "gres").output


def test_a_dry_run_counts_and_writes_nothing(bundled: Path, tmp_path: Path) -> None:
    result = tokenize(bundled, tmp_path / "out", "--split", "all", "--dry-run", "--samples-per-shard", "24")
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.output.splitlines()[:3]] == [
        ["split", "images", "dialogues", "masks", "units"],
        ["train", "8", "68", "58", "3"],
        ["val", "1", "6", "3", "1"],
    ]
    assert "train: 68 sentences, the published dataset has 209,344" in result.output
    assert "nothing was written" in result.output
    assert not (tmp_path / "out").exists()


def test_a_run_ends_with_a_table_and_the_same_as_json(
    reference: tuple[Path, Summary], bundled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, summary = reference
    again = ("--samples-per-shard", "1")
    text = tokenize(bundled, out, *again)
    assert text.exit_code == 0, text.output
    assert "train: 68 sentences, the published dataset has 209,344" in caplog.text
    assert text.stdout.splitlines()[0].split() == ["split", "shards", "size", "images", "samples", "masks", "rejects"]
    assert "rejected in train: 1 annotation-missing" in text.stdout
    assert "nothing to do: every shard was there" in text.stdout
    printed = json.loads(tokenize(bundled, out, *again, "--json").stdout)
    stored = json.loads((out / "gres" / ".samtok" / "summary.json").read_bytes())
    assert printed["splits"] == stored["splits"]
    assert stored["new_units"] == summary.new_units == 8
    assert stored["splits"]["train"]["samples"] == 67


def test_options_come_from_a_file_and_the_command_line_wins(bundled: Path, tmp_path: Path) -> None:
    config = {"dataset": "gres", "root": str(bundled), "out": str(tmp_path / "out"), "split": ["train", "val"]}
    config |= {"samples-per-shard": 24, "tokenizer": "small", "dry-run": True}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    result = invoke("tokenize", "--config", str(path), "--samples-per-shard", "1000", "--json")
    assert result.exit_code == 0, result.output
    assert {split: numbers["units"] for split, numbers in json.loads(result.output)["splits"].items()} == {
        "train": 1,
        "val": 1,
    }


def test_the_embedded_tokenizer_is_the_one_that_runs_use(reference: tuple[Path, Summary]) -> None:
    assert open_tokenizer("small").identity.sha256 == reference[1].tokenizer["sha256"]


# --- set-up errors: one sentence each, before anything is written ----------------------------------------------------


def cut_json(root: Path) -> None:
    path = root / "grefcoco" / "instances.json"
    path.write_bytes(path.read_bytes()[:-20])


def swap_files(root: Path) -> None:
    folder = root / "grefcoco"
    (folder / "grefs(unc).json").write_bytes((folder / "instances.json").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: shutil.rmtree(root / "images"), "no folder of images"),
        (lambda root: (root / "grefcoco" / "instances.json").unlink(), "grefcoco/instances.json not found"),
        (cut_json, "grefcoco/instances.json: no complete JSON: "),
        (swap_files, "expected a list of refs, each with ref_id"),
    ],
    ids=["image root", "missing file", "truncated JSON", "another file"],
)
def test_broken_sources_stop_before_the_first_shard(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    root = small_folder(tmp_path / "in")
    spoil(root)
    result = tokenize(root, tmp_path / "out")
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path("exploited"),)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_refer(
        tmp_path, "refcoco", "unc", images=[image(1)], annotations=[annotation(1, 1)], refs=[ref(1, 1, 1), Exploit()]
    )
    result = invoke("tokenize", "--dataset", "refcoco", "--root", str(root), "--out", "out", "--tokenizer", "small")
    assert result.exit_code == 1
    assert "refs(unc).p" in result.stderr
    assert not (tmp_path / "exploited").exists()
    assert not (tmp_path / "out").exists()


def missing_keys(path: Path) -> None:
    state = {"model.sam2_model.no_mem_embed": torch.zeros(1, 1, 256), **codebooks(256)}
    torch.save(state, path)


def codebooks(size: int) -> dict[str, torch.Tensor]:
    names = {"weight": (size + 1, 256), "cluster_size_ema": (size,), "embed_ema": (size, 256)}
    return {
        f"quantizer.codebooks.{level}.{name}": torch.zeros(shape) for level in range(2) for name, shape in names.items()
    }


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (missing_keys, "image_encoder.neck.convs.3.conv.bias, model"),
        (lambda path: torch.save(codebooks(512), path), "512"),
        (lambda path: path.write_bytes(pickle.dumps(Exploit())), ""),
        (lambda path: path.write_bytes(b"no weights at all"), ""),
        (lambda path: None, ""),
    ],
    ids=["missing keys", "another codebook size", "a pickle with code", "no checkpoint", "no file"],
)
def test_a_checkpoint_that_does_not_fit_is_named(
    tmp_path: Path, bundled: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mask_tokenizer_256x2.pth"
    write(path)
    result = tokenize(bundled, tmp_path / "out", "--tokenizer", str(path))
    assert result.exit_code == 1, result.output
    assert "mask_tokenizer_256x2.pth" in result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "exploited").exists()
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, bundled: Path) -> None:
    model = open_tokenizer("small")
    with torch.no_grad():
        model.state_dict()["quantizer.codebooks.1.weight"][3, 4] = float("nan")
    save_tokenizer(model, tmp_path / "nan.safetensors", name="nan", trained=True)
    result = tokenize(bundled, tmp_path / "out", "--tokenizer", str(tmp_path / "nan.safetensors"))
    assert result.exit_code == 1
    assert "1 key with numbers that are not finite: quantizer.codebooks.1.weight; it was damaged" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nan.safetensors"]


def test_unreachable_weights_name_both_ways_out(tmp_path: Path, bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    script = (
        "from click.testing import CliRunner\nfrom pipelines.cli import main\n"
        f"result = CliRunner().invoke(main, ['tokenize', '--dataset', 'gres', '--root', {str(bundled)!r}, "
        f"'--out', {str(tmp_path / 'out')!r}])\nprint(result.exit_code, result.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 ")
    assert "Error: the weights of samtok-256x2" in done.stdout
    assert "--tokenizer small" in done.stdout
    assert "mask_tokenizer_256x2.pth" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--split", "dev"), "--split dev: not in"),
        (("--num-gpus-per-actor", "nan"), "--num-gpus-per-actor should be 0 or more, got nan"),
        (("--out", "memory://x"), "--out should be a folder that every process can reach, got 'memory://x'"),
        (("--out", ""), "--out should be a folder that every process can reach, got ''"),
        (("--limit", "0"), "--limit should be at least 1, got 0"),
        (("--samples-per-shard", "-4"), "--samples-per-shard should be at least 1, got -4"),
        (("--actors", "0"), "--actors should be at least 1, got 0"),
        (("--max-reject-rate", "5"), "--max-reject-rate should be a fraction from 0 to 1, got 5.0"),
        (("--precision", "bf16"), "--precision bf16 needs a GPU"),
        (("--precision", "fp16"), "--precision fp16 needs a GPU"),
        (("--feeders", "0"), "--feeders should be at least 1, got 0"),
        (("--feeders", "2"), "--feeders is for runs on GPUs"),
        (("--images-root", "nowhere"), "--images-root nowhere: no such folder"),
        (("--dataset", "grefcoco"), "--dataset grefcoco: unknown; known are gres, refcoco"),
        (("--partition", "google"), "--partition google: gres has the partitions unc"),
        (("--out", "nonsense://x"), "no file system for this address"),
    ],
)
def test_wrong_options_are_named(bundled: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    result = tokenize(bundled, tmp_path / "out", *options)
    assert result.exit_code == 1, result.output
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dataset: gres\nactor: 3\n", "'actor' is no option; known are "),
        ("dataset: gres\nroot: .\nout: o\nlimit: many\n", "'many' is not a valid integer"),
        ("dataset: gres\nroot: .\nout: o\nimages: nonsense\n", "'nonsense' is not one of"),
        ("dataset: gres\nroot: .\nout: o\nsplit: []\n", "--split should name at least one split, got none"),
        ("dataset: gres\nroot: nowhere\nout: o\nsplit: train\n", "grefcoco/grefs(unc).json"),
        ("- gres\n", "expected a mapping of option names to values"),
        ("dataset: [\n", "no valid YAML"),
    ],
)
def test_a_wrong_config_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    result = invoke("tokenize", "--config", str(path))
    assert result.exit_code in (1, 2)  # 2 is click's own
    assert words in result.stderr


def test_an_output_that_cannot_be_made_is_a_setup_error(bundled: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where a folder should be")
    result = tokenize(bundled, tmp_path / "out")
    assert result.exit_code == 1
    assert "could not be written: Not a directory" in result.stderr
