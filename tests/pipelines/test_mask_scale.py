"""SA-1B at its own sizes: twenty tars of large images with a hundred masks each. Memory, and a run that is killed.

The network is faked, for it would take an hour on a CPU; pictures and masks are decoded and resized for the published
tokenizer, which is what takes the memory.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tarfile
import textwrap
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.verify import find_outputs, verify
from samtok_data import masks
from samtok_data.masks import RLE
from samtok_data.words import MaskVocabulary
from tests.pipelines.conftest import digests
from tests.pipelines.mask_runs import SPLIT
from tokenizer_model.config import SAMTOK_256X2
from tokenizer_model.inputs import Prepared

TARS, IMAGES, MASKS = 20, 50, 100
HEIGHT, WIDTH = 1500, 2250
# Between the means of five units: one unit's peak hangs on how far the threads are ahead. Kept of every tar, ten of its
# pictures would be a gigabyte more.
SLACK_MIB = 100


class PreparingTokenizer:
    """Prepares as the published tokenizer does; codes are checksums of what it would be shown."""

    vocabulary = MaskVocabulary()

    def prepare(self, image: Image.Image, regions: Sequence[RLE]) -> Prepared:
        return Prepared.of(image, regions, SAMTOK_256X2)

    def encode_prepared(self, prepared: Sequence[Prepared]) -> list[NDArray[np.int64]]:
        return [
            np.array([divmod(zlib.crc32(prompt_PP.tobytes()) % 65536, 256) for prompt_PP in one.prompts], np.int64)
            for one in prepared
        ]


# What a unit took at most, in MiB, after its number. The peak is set back before each.
PROGRAM = textwrap.dedent("""
    import sys
    from pathlib import Path
    import pytest
    from pipelines.run import tokenize
    from tests.converters.mask_sources import peak_mib
    from tests.pipelines.mask_runs import mask_config, run_here
    from tests.pipelines.test_mask_scale import PreparingTokenizer
    import pipelines.run as run

    with pytest.MonkeyPatch.context() as patch:
        here = run_here(patch)
        here.tokenizer = PreparingTokenizer()

        run_units = here.run

        def run_measured(jobs):
            Path("/proc/self/clear_refs").write_text("5")
            for split, entry in run_units(jobs):
                print(entry.index, peak_mib(), flush=True)
                Path("/proc/self/clear_refs").write_text("5")
                yield split, entry

        here.run = run_measured
        tokenize(mask_config(sys.argv[1], sys.argv[2], option={"masks_per_image": None}))
""")


def start(root: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def blobs(generator: np.random.Generator, number: int) -> list[RLE]:
    """Ellipses of all sizes, with ragged edges."""
    y_H1, x_1W = np.ogrid[:HEIGHT, :WIDTH]
    found = []
    for _ in range(number):
        centre_y, centre_x = generator.uniform(0, HEIGHT), generator.uniform(0, WIDTH)
        height, width = np.exp(generator.uniform(np.log(8), np.log(700), 2))
        ragged_1W = 1 + 0.2 * np.sin(x_1W / generator.uniform(2, 30))
        mask_HW = ((y_H1 - centre_y) / height) ** 2 + ((x_1W - centre_x) / width) ** 2 < ragged_1W
        found.append(masks.encode(mask_HW) if mask_HW.any() else masks.encode(np.ones((HEIGHT, WIDTH), np.bool_)))
    return found


def write_set(root: Path) -> dict[str, dict[str, str]]:
    """The tars; masks of every scene by region. A few pictures and masks make all images, each in its own mixture."""
    generator = np.random.default_rng(0)
    pictures, pool = [], [rle.json for rle in blobs(generator, 3 * MASKS)]
    for _ in range(5):
        coarse = generator.integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        pictures.append(buffer.getvalue())
    wanted = {}
    for tar in range(TARS):
        with tarfile.open(root / f"sa_{tar:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number in generator.permutation(range(tar * IMAGES, (tar + 1) * IMAGES)).tolist():
                chosen = [pool[at] for at in generator.permutation(len(pool))[:MASKS]]
                listed = [{"id": at, "segmentation": rle} for at, rle in enumerate(chosen)]
                text = {"image": {"height": HEIGHT, "width": WIDTH}, "annotations": listed}
                for name, data in (("jpg", pictures[number % 5]), ("json", json.dumps(text).encode())):
                    member = tarfile.TarInfo(f"sa_{number}.{name}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
                wanted[f"sa_{number}"] = {str(at): rle["counts"] for at, rle in enumerate(chosen)}
    return wanted


def masks_of(out: Path) -> dict[str, dict[str, str]]:
    """Masks of every scene by region, in the order of the rows."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((out / SPLIT).glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["scene", "region", "counts"]):
                rows: list[dict[str, Any]] = batch.to_pylist()
                for row in rows:
                    found.setdefault(row["scene"], {})[row["region"]] = row["counts"].decode()
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_twenty_tars_take_the_memory_of_one_and_a_killed_run_gives_the_same_bytes(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    wanted = write_set(root)

    with start(root, tmp_path / "whole") as process:
        assert process.stdout is not None
        peaks = [float(line.split()[1]) for line in process.stdout]
    assert process.returncode == 0
    print("peak memory by unit, MiB:", *(round(peak) for peak in peaks))  # noqa: T201 - shown with -s
    assert len(peaks) == TARS
    assert sum(peaks[-5:]) / 5 < sum(peaks[1:6]) / 5 + SLACK_MIB

    found = masks_of(tmp_path / "whole")
    assert found == wanted
    assert [(scene, list(regions)) for scene, regions in found.items()] == [
        (scene, list(regions)) for scene, regions in wanted.items()
    ]
    (verdict,) = verify(find_outputs(str(tmp_path / "whole")))
    assert (verdict.problems, verdict.totals.masks) == ([], TARS * IMAGES * MASKS)

    for after in (3, 9):  # killed twice, in the middle of a unit
        with start(root, tmp_path / "killed") as process:
            assert process.stdout is not None
            for _ in range(after):
                process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=3)
            process.send_signal(signal.SIGKILL)
    with start(root, tmp_path / "killed") as process:
        assert process.stdout is not None
        made = [int(line.split()[0]) for line in process.stdout]
    assert process.returncode == 0
    assert made == list(range(TARS - len(made), TARS))
    assert len(made) <= TARS - 12
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
