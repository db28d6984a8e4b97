"""Files of a pinned commit, read from a local clone's git directory; no work tree is needed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from recipes.small.prepare.table import Part
from samtok_data.errors import SetupError


@dataclass(frozen=True, slots=True)
class Repository:
    """An open repository.

    Attributes:
        git: its git directory.
        commit: whose files are read.
        files: their paths.
        requests: of ``git cat-file --batch``.
        answers: of it.
    """

    git: Path
    commit: str
    files: frozenset[str]
    requests: IO[bytes]
    answers: IO[bytes]

    def below(self, folder: str, ending: str = "") -> list[str]:
        """Paths under a folder that end so, sorted."""
        return sorted(path for path in self.files if path.startswith(f"{folder}/") and path.endswith(ending))

    def read(self, path: str) -> bytes:
        """A file's bytes.

        Raises:
            SetupError: it is not there, although the commit is: the clone is partial, or the table is wrong.
        """
        self.requests.write(f"{self.commit}:{path}\n".encode())
        self.requests.flush()
        header = self.answers.readline().split()
        if len(header) != 3 or header[1] != b"blob":
            raise SetupError(f"{self.git}: {path} of commit {self.commit} cannot be read; is the clone whole?")
        data = self.answers.read(int(header[2]))
        self.answers.read(1)  # the line's end
        return data


def clone_line(folder: Path, repository: str) -> str:
    """What a person runs to get a repository."""
    return f"git clone --bare https://github.com/{repository} {folder / repository.replace('/', '+')}"


def check_repositories(folder: Path, parts: Iterable[Part]) -> None:
    """Looks for all repositories and their commits, before anything is read.

    Raises:
        SetupError: one sentence for each that is missing or has not the pinned commit.
    """
    faults = []
    for part in parts:
        try:
            _locate(folder, part)
        except SetupError as error:
            faults.append(str(error))
    if faults:
        raise SetupError("\n".join(dict.fromkeys(faults)))


@contextmanager
def open_repository(folder: Path, part: Part) -> Iterator[Repository]:
    """A repository at its pinned commit.

    Args:
        folder: of all clones.
        part: says which repository and commit.

    Raises:
        SetupError: it is not there, or has not that commit.
    """
    git = _locate(folder, part)
    listed = _git(git, "ls-tree", "-r", "-z", "--name-only", "--full-tree", part.commit)
    files = frozenset(os.fsdecode(name) for name in listed.stdout.split(b"\0") if name)
    command = ["git", f"--git-dir={git}", "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is not None and process.stdout is not None:  # they are pipes: for the type checker
            yield Repository(git, part.commit, files, process.stdin, process.stdout)


def _locate(folder: Path, part: Part) -> Path:
    """The git directory that holds the commit."""
    line = clone_line(folder, part.repository)
    names = [part.repository.replace("/", joint) for joint in ("+", "__")]
    found = [git for name in names for git in _git_folders(folder / name)]
    if not found:
        raise SetupError(f"{part.repository}: no clone under {folder}; run: {line}")
    for git in found:
        if _git(git, "cat-file", "-e", f"{part.commit}^{{commit}}").returncode == 0:
            return git
    raise SetupError(f"{part.repository}: {found[0]} has no commit {part.commit}; remove it and run: {line}")


def _git_folders(clone: Path) -> list[Path]:
    """Git directories of a clone: itself if bare, its .git, or either of a folder in it."""
    if not clone.is_dir():
        return []
    inner = sorted(path for path in clone.iterdir() if path.is_dir() and path.name != ".git")
    candidates = [path for folder in (clone, *inner) for path in (folder / ".git", folder)]
    return [path for path in candidates if (path / "HEAD").is_file() and (path / "objects").is_dir()]


def _git(git: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", f"--git-dir={git}", *arguments], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise SetupError("git: no such program; install git") from error
