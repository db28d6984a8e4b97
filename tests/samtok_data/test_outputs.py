"""The output folder of a split: what counts as finished, whose folder it is, and what a fault leaves."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from samtok_data.errors import SetupError
from samtok_data.fingerprints import Fingerprint
from samtok_data.outputs import HIDDEN, SplitOutput, Totals, UnitEntry
from samtok_data.rejects import Reject
from samtok_data.samples import Sample
from samtok_data.shards import ShardFile, pack, read_shard
from samtok_data.storage import TEMPORARY, Folder

FINGERPRINT = Fingerprint({"format": 1, "split": "val", "tokenizer": {"spec": "small"}})
TOKENIZER = {"name": "small", "sha256": "ab" * 32}
EMPTY = Reject("ref-7", "mask-empty", "no foreground\non 5x4", {"ref": 7, "text": "猫"})
MISSING = Reject("ref-8", "image-missing", "a.jpg is not there", {"ref": 8})


def samples(*numbers: int) -> list[Sample]:
    return [Sample(f"ref-{number}", {"id": f"ref-{number}", "masks": []}, {"jpg": b"picture"}) for number in numbers]


def commit(output: SplitOutput, index: int, made: list[Sample], rejects: list[Reject] | None = None) -> UnitEntry:
    return output.commit(
        index,
        content=pack(made) if made else None,
        samples=len(made),
        rejects=rejects or [],
        images=len(made),
        masks=2 * len(made),
        tokenizer=TOKENIZER,
        run=FINGERPRINT.digest,
    )


@pytest.fixture
def output(folder: Folder) -> SplitOutput:
    """A split's folder, begun."""
    split = SplitOutput(folder, "gres", "val")
    split.begin(FINGERPRINT, overwrite=False)
    return split


@pytest.fixture
def memory() -> SplitOutput:
    """A split's folder in memory, begun and empty: for what no file system can change."""
    split = SplitOutput(Folder("memory://outputs"), "gres", "val")
    split.begin(FINGERPRINT, overwrite=True)
    return split


def names(output: SplitOutput) -> list[str]:
    return sorted(name for name in output.folder.walk() if not name.startswith(f"{TEMPORARY}/"))


def fail_at(monkeypatch: pytest.MonkeyPatch, method: str, hits: Callable[[str], bool]) -> None:
    """Lets ``Folder.write`` or ``Folder.remove`` fail for some names, as a full disk does."""
    real = getattr(Folder, method)

    def failing(self: Folder, name: str, *args: Any) -> None:
        if hits(name):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, name, *args)

    monkeypatch.setattr(Folder, method, failing)


def test_a_split_from_its_beginning_to_its_manifest(output: SplitOutput) -> None:
    assert (output.finished(FINGERPRINT), output.manifest(), output.rejects()) == ({}, None, [])
    second = commit(output, 1, samples(3), [EMPTY, MISSING, EMPTY])
    first = commit(output, 0, samples(1, 2))
    third = commit(output, 2, [], [EMPTY])
    assert output.manifest() is None
    finished = output.finished(FINGERPRINT)
    assert list(finished.items()) == [(0, first), (1, second), (2, third)]
    totals = output.finish(FINGERPRINT, list(finished.values()))
    assert names(output) == [
        ".samtok/manifest.json",
        ".samtok/rejects/000001.jsonl",
        ".samtok/rejects/000002.jsonl",
        ".samtok/run.json",
        ".samtok/units/000000.json",
        ".samtok/units/000001.json",
        ".samtok/units/000002.json",
        "gres-val-000000.tar",
        "gres-val-000001.tar",
    ]
    sizes = output.folder.sizes()
    assert totals == Totals(
        units=3, shards=2, bytes=sizes["gres-val-000000.tar"] + sizes["gres-val-000001.tar"], images=3, samples=3,
        masks=6, records=7, rejects={"mask-empty": 3, "image-missing": 1},
    )  # fmt: skip
    assert list(totals.rejects) == ["mask-empty", "image-missing"]
    assert totals.num_rejects == 4
    assert output.manifest() == {
        "format": 1,
        "dataset": "gres",
        "split": "val",
        "run": FINGERPRINT.digest,
        "fingerprint": FINGERPRINT.parts,
        "totals": asdict(totals),
        "units": [asdict(first), asdict(second), asdict(third)],
    }
    assert output.rejects() == [EMPTY, MISSING, EMPTY, EMPTY]
    assert list(read_shard(output.folder, "gres-val-000000.tar")) == samples(1, 2)


def test_an_entry_says_what_became_of_the_unit(output: SplitOutput) -> None:
    entry = commit(output, 17, samples(1, 2), [EMPTY])
    data = output.folder.read("gres-val-000017.tar")
    assert entry == UnitEntry(
        index=17,
        shard=ShardFile("gres-val-000017.tar", len(data), hashlib.sha256(data).hexdigest()),
        images=2,
        samples=2,
        masks=4,
        records=3,
        rejects={"mask-empty": 1},
        tokenizer=TOKENIZER,
        run=FINGERPRINT.digest,
    )
    assert UnitEntry.of_json(json.loads(json.dumps(asdict(entry)))) == entry


def test_a_unit_without_samples_has_an_entry_but_no_shard(output: SplitOutput) -> None:
    entry = commit(output, 0, [], [EMPTY])
    assert (entry.shard, entry.samples, entry.records) == (None, 0, 1)
    assert output.folder.names() == []
    assert output.finished(FINGERPRINT) == {0: entry}


def test_a_unit_without_records_counts_too(output: SplitOutput) -> None:
    entry = commit(output, 0, [])
    assert output.finished(FINGERPRINT) == {0: entry}
    assert names(output) == [".samtok/run.json", ".samtok/units/000000.json"]


def test_the_same_unit_twice_is_the_same_bytes(output: SplitOutput) -> None:
    def snapshot() -> dict[str, bytes]:
        return {name: output.folder.read(name) for name in names(output)}

    commit(output, 0, samples(1), [EMPTY])
    before = snapshot()
    commit(output, 0, samples(1), [EMPTY])
    assert snapshot() == before


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: folder.remove("gres-val-000000.tar"), id="shard-gone"),
        pytest.param(lambda folder: folder.write("gres-val-000000.tar", b"x" * 512), id="shard-of-another-size"),
        pytest.param(lambda folder: folder.write("gres-val-000000.tar", b""), id="shard-empty"),
        pytest.param(lambda folder: folder.remove(f"{HIDDEN}/units/000000.json"), id="entry-gone"),
        pytest.param(lambda folder: folder.write(f"{HIDDEN}/units/000000.json", b""), id="entry-empty"),
        pytest.param(lambda folder: folder.write(f"{HIDDEN}/units/000000.json", b'{"index": 0'), id="entry-cut"),
        pytest.param(lambda folder: folder.write(f"{HIDDEN}/units/000000.json", b"[]"), id="entry-of-another-type"),
        pytest.param(lambda folder: folder.write(f"{HIDDEN}/units/000000.json", b'{"shard": {}}'), id="entry-of-less"),
    ],
)
def test_a_unit_that_was_spoilt_is_not_finished_and_can_be_made_again(
    output: SplitOutput, spoil: Callable[[Folder], None]
) -> None:
    spoilt, kept = commit(output, 0, samples(1)), commit(output, 1, samples(2))
    spoil(output.folder)
    assert output.finished(FINGERPRINT) == {1: kept}
    assert commit(output, 0, samples(1)) == spoilt
    assert output.finished(FINGERPRINT) == {0: spoilt, 1: kept}


@pytest.mark.parametrize("point", ["gres-val-000000.tar", "rejects/000000.jsonl", "units/000000.json"])
def test_a_unit_whose_writing_fails_is_not_finished(
    output: SplitOutput, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The entry is written last: whatever fails before it leaves a unit that is made again."""
    kept = commit(output, 1, samples(5))
    fail_at(monkeypatch, "write", lambda name: name.endswith(point))
    with pytest.raises(SetupError) as caught:
        commit(output, 0, samples(1), [EMPTY])
    name = point if point.endswith(".tar") else f"{HIDDEN}/{point}"
    assert str(caught.value) == (
        f"{output.folder}/{name} could not be written: No space left on device. "
        "What was finished stays; mend the folder and run again to resume"
    )
    assert output.finished(FINGERPRINT) == {1: kept}
    assert not output.folder.exists(f"{HIDDEN}/units/000000.json")
    monkeypatch.undo()
    entry = commit(output, 0, samples(1), [EMPTY])
    assert output.finished(FINGERPRINT) == {0: entry, 1: kept}


def test_a_second_try_removes_what_the_first_one_left(output: SplitOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image was missing, or there, at the first try: its reject, or its shard, must not stay beside the entry."""
    fail_at(monkeypatch, "write", lambda name: "/units/" in name)
    for index, made, rejects in ((0, samples(1), [EMPTY]), (1, samples(2), [MISSING])):
        with pytest.raises(SetupError):
            commit(output, index, made, rejects)
    monkeypatch.undo()
    assert output.rejects() == [EMPTY, MISSING]
    commit(output, 0, samples(1))
    commit(output, 1, [], [EMPTY])
    assert output.folder.names(".tar") == ["gres-val-000000.tar"]
    assert output.rejects() == [EMPTY]


def test_a_run_is_resumed_under_the_same_fingerprint(output: SplitOutput) -> None:
    entry = commit(output, 0, samples(1))
    output.folder.write(f"{TEMPORARY}/tmpabc", b"half a shard of a killed run")
    again = SplitOutput.at(output.folder)
    again.begin(Fingerprint(json.loads(json.dumps(FINGERPRINT.parts))), overwrite=False)
    assert again.finished(FINGERPRINT) == {0: entry}
    assert not again.folder.exists(TEMPORARY)
    found = again.fingerprint()
    assert found is not None
    assert found.digest == FINGERPRINT.digest


def test_a_run_under_other_settings_is_refused_by_name(output: SplitOutput) -> None:
    commit(output, 0, samples(1))
    before = names(output)
    other = Fingerprint({"format": 1, "split": "val", "tokenizer": {"spec": "large"}, "seed": 3})
    with pytest.raises(SetupError) as caught:
        SplitOutput.at(output.folder).begin(other, overwrite=False)
    assert str(caught.value) == (
        f"{output.folder} holds a run with other settings: seed was nothing, is 3; "
        'tokenizer.spec was "small", is "large". '
        "Give the earlier settings to resume it, choose another --out, or --overwrite to delete it"
    )
    assert names(output) == before


def test_overwrite_deletes_the_run_and_nothing_else(output: SplitOutput) -> None:
    commit(output, 0, samples(1), [EMPTY])
    output.finish(FINGERPRINT, list(output.finished(FINGERPRINT).values()))
    for name in ("notes.txt", "sub/other.tar", "foreign.tar", f"{TEMPORARY}/x"):
        output.folder.write(name, b"1")
    other = Fingerprint({"seed": 2})
    SplitOutput.at(output.folder).begin(other, overwrite=True)
    assert names(output) == [".samtok/run.json", "notes.txt", "sub/other.tar"]
    assert not output.folder.exists(f"{TEMPORARY}/x")
    assert (output.finished(FINGERPRINT), output.manifest(), output.rejects()) == ({}, None, [])
    found = output.fingerprint()
    assert found is not None
    assert found.digest == other.digest


def test_splits_of_one_output_do_not_touch_each_other(output: SplitOutput) -> None:
    entry = commit(output, 0, samples(1))
    other = SplitOutput(Folder(output.folder.address.rsplit("/", 2)[0]), "gres", "train")
    other.begin(Fingerprint({"split": "train"}), overwrite=True)
    commit(other, 0, samples(2))
    other.clear()
    assert names(other) == []
    assert output.finished(FINGERPRINT) == {0: entry}


def test_tars_of_unknown_origin_are_refused(folder: Folder) -> None:
    output = SplitOutput(folder, "gres", "val")
    output.folder.write("theirs.tar", b"1")
    with pytest.raises(SetupError) as caught:
        output.begin(FINGERPRINT, overwrite=False)
    assert str(caught.value) == (
        f"{output.folder} holds theirs.tar without the run that made it: "
        "choose another --out, or --overwrite to delete every .tar there"
    )
    assert names(output) == ["theirs.tar"]
    output.begin(FINGERPRINT, overwrite=True)
    assert names(output) == [".samtok/run.json"]


def test_files_that_are_no_tars_are_left_alone(folder: Folder) -> None:
    output = SplitOutput(folder, "gres", "val")
    output.folder.write("README.md", b"1")
    output.begin(FINGERPRINT, overwrite=False)
    assert names(output) == [".samtok/run.json", "README.md"]


def test_entries_without_their_run_do_not_count(output: SplitOutput) -> None:
    """What an --overwrite that was killed half way leaves."""
    commit(output, 0, [], [EMPTY])
    output.folder.remove(f"{HIDDEN}/run.json")
    output.begin(Fingerprint({"seed": 2}), overwrite=False)
    assert (output.finished(FINGERPRINT), output.rejects()) == ({}, [])
    assert names(output) == [".samtok/run.json"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"7", b'{"format": 1}', b"\xff\xfe"])
def test_a_damaged_run_file_is_a_setup_error(memory: SplitOutput, data: bytes) -> None:
    memory.folder.write(f"{HIDDEN}/run.json", data)
    message = f"^{memory.folder}/.samtok/run.json is damaged: --overwrite deletes the run$"
    with pytest.raises(SetupError, match=message):
        memory.fingerprint()
    with pytest.raises(SetupError, match=message):
        memory.begin(FINGERPRINT, overwrite=False)
    memory.begin(FINGERPRINT, overwrite=True)
    assert memory.fingerprint() == FINGERPRINT


def test_a_folder_that_cannot_be_written_is_a_setup_error(memory: SplitOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.clear()
    fail_at(monkeypatch, "write", lambda _name: True)
    with pytest.raises(SetupError, match=r"^memory://outputs/gres/val/.samtok/run.json could not be written: No space"):
        memory.begin(FINGERPRINT, overwrite=False)
    with pytest.raises(SetupError, match=r"^memory://outputs/gres/val/.samtok/manifest.json could not be written: No"):
        memory.finish(FINGERPRINT, [])
    assert names(memory) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_cannot_be_read_is_a_setup_error(
    memory: SplitOutput, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """The first contact with a store: a wrong endpoint, or no credentials."""

    def fail(*_args: object) -> None:
        raise OSError("Unable to locate credentials")

    monkeypatch.setattr(Folder, "exists", fail)
    monkeypatch.setattr(Folder, "sizes", fail)
    with pytest.raises(SetupError) as caught:
        memory.begin(FINGERPRINT, overwrite=overwrite)
    assert str(caught.value) == (
        "memory://outputs/gres/val cannot be used: Unable to locate credentials. "
        "Check the address, the permissions and, for an object store, the credentials"
    )


def test_leftovers_that_cannot_be_removed_are_a_setup_error(
    memory: SplitOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, "remove", lambda name: name == TEMPORARY)
    with pytest.raises(SetupError, match=r"^memory://outputs/gres/val/.tmp could not be written: No space left"):
        memory.begin(FINGERPRINT, overwrite=False)


def test_an_output_survives_pickling(output: SplitOutput) -> None:
    copy = pickle.loads(pickle.dumps(output))
    entry = commit(copy, 0, samples(1))
    assert output.finished(FINGERPRINT) == {0: entry}


def test_totals_of_nothing_are_zero() -> None:
    assert Totals.of([]) == Totals()
    assert Totals().num_rejects == 0
