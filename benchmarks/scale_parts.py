"""What ``benchmarks.scale`` measures, part by part."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import random
import re
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from PIL import Image

from benchmarks.mask_sources import patches, write_coco
from converters.masks.registry import open_mask_source
from converters.masks.source import MaskedImage
from pipelines.config import RunConfig
from pipelines.mask_work import MaskWork
from samtok_data.label_maps import encode_labels
from samtok_data.mask_table import MaskRow, MaskTableWriter, open_table
from samtok_data.outputs import SplitOutput
from samtok_data.rejects import Reject
from samtok_data.storage import Folder
from samtok_data.words import MaskVocabulary
from tests.converters.mask_sources import jpeg, peak_mib
from tokenizer_model import identify_tokenizer

TAR_BYTES = 11_000_000_000
EMPTY_TAR = bytes(10_240)


class Clock:
    """Wall and CPU time of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, name: str) -> dict[str, float]:
        """Both in seconds, under names that begin with ``name``."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return {f"{name}_s": round(wall, 3), f"{name}_cpu_s": round(cpu, 3)}


def config_of(root: Path, out: str, **changes: Any) -> RunConfig:
    usual: dict[str, Any] = {"dataset": "sa1b", "tokenizer": "small", "num_gpus_per_actor": 0, "actors": 2}
    return RunConfig(**{**usual, "root": str(root), "out": out, **changes})


def write_tars(root: Path, numbers: range, *, size: int | None = None) -> None:
    """Tars without members; with ``size`` sparse files of so many bytes, of which only the names mean something."""
    root.mkdir(exist_ok=True)
    for number in numbers:
        path = root / f"sa_{number:06d}.tar"
        path.write_bytes(EMPTY_TAR if size is None else b"")
        if size is not None:
            os.truncate(path, size)


def plan_tars(folder: Path) -> dict[str, Any]:
    """A run's plan over 1,000 tars as large as SA-1B's, and again with ten more of them."""
    write_tars(folder / "root", range(1_000), size=TAR_BYTES)
    identity = identify_tokenizer("small")
    config = config_of(folder / "root", str(folder / "out"))
    clock = Clock()
    work = MaskWork(config)
    (split,) = work.split_runs(identity, "cpu")
    found = {"tars": len(split.units), **clock.read("plan")}
    split.output.begin(split.fingerprint, overwrite=False)
    work.begin(split)
    write_tars(folder / "root", range(1_000, 1_010), size=TAR_BYTES)
    clock = Clock()
    grown = MaskWork(config)
    (split,) = grown.split_runs(identity, "cpu")
    found |= {"tars_then": len(split.units), **clock.read("plan_again"), "peak_mib": round(peak_mib(), 1)}
    clock = Clock()
    sent = [pickle.dumps(grown.payload(unit)) for unit in split.units]
    return {**found, **clock.read("all_payloads"), "payload_bytes": len(sent[-1])}


def index_pictures(folder: Path, pictures: int = 1_000_000, folders: int = 1_000) -> dict[str, Any]:
    """The index of pairs in folders, as SA-1B lies when its tars were unpacked; the files are empty."""
    for place in range(folders):
        below = folder / "root" / f"sa_{place:06d}"
        below.mkdir(parents=True)
        for number in range(place, pictures, folders):
            for ending in ("jpg", "json"):
                os.close(os.open(below / f"sa_{number}.{ending}", os.O_CREAT | os.O_WRONLY))
    before, clock = peak_mib(), Clock()
    source = open_mask_source("sa1b", root=str(folder / "root"), index=str(folder / "index"))
    found = {"pictures": source.num_units, **clock.read("index"), "peak_mib": round(peak_mib(), 1)}
    clock = Clock()
    open_mask_source("sa1b", root=str(folder / "root"), index=str(folder / "index"))
    index_bytes = sum(path.stat().st_size for path in (folder / "index").rglob("*.sqlite"))
    return {**found, "peak_mib_before": round(before, 1), **clock.read("open_again"), "index_bytes": index_bytes}


RUN = """
import json, sys, time
from pipelines.config import RunConfig
from pipelines.run import tokenize
from tests.converters.mask_sources import peak_mib
root, out = sys.argv[1:]
before = peak_mib()
start, cpu = time.perf_counter(), time.process_time()
config = RunConfig(dataset="sa1b", root=root, out=out, tokenizer="small", num_gpus_per_actor=0, actors=2)
summary = tokenize(config)
wall = time.perf_counter() - start
print(json.dumps({"new_units": summary.new_units, "wall_s": round(wall, 2), "units_s": summary.seconds,
                  "driver_cpu_s": round(time.process_time() - cpu, 2), "peak_mib_before": round(before, 1),
                  "peak_mib": round(peak_mib(), 1)}))
"""


def run_units(folder: Path, units: int) -> dict[str, Any]:
    """``tokenize`` over tars without members, real in all but what lies in them; then the resume of what is done."""

    write_tars(folder / "root", range(units))
    command = [sys.executable, "-c", RUN, str(folder / "root"), str(folder / "out")]

    def run() -> dict[str, Any]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    first, again = run(), run()
    output = folder / "out" / "sa1b" / "masks" / ".samtok"
    entry = output / "units" / "000000.json"
    return {
        "units": units,
        **first,
        "ms_a_unit": round(first["units_s"] / units * 1000, 2),
        **{f"resume_{name}": value for name, value in again.items()},
        "entry_bytes": entry.stat().st_size,
        "manifest_bytes": (output / "manifest.json").stat().st_size,
        "plan_bytes": (output / "plan.json").stat().st_size,
    }


class Requests(logging.Handler):
    """Counts what an S3 server is asked, by kind, while it is attached."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """One line of the server's log."""
        found = re.search(r"(GET|PUT|HEAD|DELETE|POST) (\S+) HTTP", record.getMessage())
        if found:
            is_list = found[1] == "GET" and "list-type=2" in found[2]
            self.kinds["LIST" if is_list else found[1]] += 1

    def taken(self) -> dict[str, int]:
        """The counts since the last time."""
        kinds = dict(sorted(self.kinds.items()))
        self.kinds.clear()
        return kinds


@contextmanager
def store() -> Iterator[Requests]:
    """An S3 server in this process with a bucket ``scale``, to which the environment leads."""
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server, requests, log = (
        ThreadedMotoServer(ip_address="127.0.0.1", port=0),
        Requests(),
        logging.getLogger("werkzeug"),
    )
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    S3FileSystem().mkdir("scale")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(requests)
    yield requests
    server.stop()


def count_requests(folder: Path, units: int = 300) -> dict[str, Any]:
    """What a run of empty units, its resume, and single units ask of a store. Lists have pages of 1,000 names."""
    write_tars(folder / "root", range(units))
    command = [sys.executable, "-c", RUN, str(folder / "root"), "s3://scale/out"]
    found: dict[str, Any] = {"units": units}
    reject = Reject("one", "image-missing", "one.jpg: not there", {})
    with store() as requests:
        for name in ("run", "resume"):
            subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = requests.taken()
        output = SplitOutput(Folder("s3://scale/direct"), "sa1b", "masks", "table")
        usual: dict[str, Any] = {"samples": 1, "images": 1, "masks": 1, "tokenizer": {}, "run": "r"}
        for name, size, rejects in (
            ("unit", 1_000, []),
            ("unit_with_rejects", 1_000, [reject]),
            ("unit_of_200_mb", 200_000_000, []),
        ):
            output.commit(0, content=bytes(size), rejects=rejects, **usual)
            found[name] = requests.taken()
    return found


def count_reads(folder: Path) -> dict[str, Any]:
    """What reading ten pairs of SA-1B asks of a store, with the pictures, and reading a tar of 300 MB."""
    picture = jpeg(height=150, width=225)
    regions = encode_labels(patches(150, 225, 5, 0)).items()
    annotations = [{"id": label, "segmentation": rle.json} for label, rle in regions]
    text = json.dumps({"image": {"height": 150, "width": 225}, "annotations": annotations}).encode()
    large = 300_000_000 // 100
    with tarfile.open(folder / "sa_000000.tar", "w") as tar:
        for number in range(100):
            for name, data in ((f"sa_{number}.jpg", picture.ljust(large, b"0")), (f"sa_{number}.json", text)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    found: dict[str, Any] = {}
    with store() as requests:
        for number in range(10):
            Folder("s3://scale/pairs").write(f"sa_{number}.jpg", picture)
            Folder("s3://scale/pairs").write(f"sa_{number}.json", text)
        Folder("s3://scale/tars").write("sa_000000.tar", (folder / "sa_000000.tar").read_bytes())
        for name in ("pairs", "tars"):
            source = open_mask_source("sa1b", root=f"s3://scale/{name}", index=str(folder / "index"))
            records = source.records(range(source.num_units))
            requests.taken()
            images = 0
            for record in records:
                for one in source.read_record(record):
                    if isinstance(one, MaskedImage):
                        images += 1
                        one.open()
            found |= {f"{name}_images": images, name: requests.taken()}
    return found


def measure_payloads(folder: Path, megabytes: int = 100) -> dict[str, Any]:
    """What the driver sends of a COCO file, 1,000 images a unit: bytes as Ray pickles them, time to read them."""
    (folder / "root").mkdir()
    write_coco(folder / "root" / "instances.json", megabytes)
    options = {"json": "instances.json", "images": "."}
    config = config_of(folder / "root", str(folder / "out"), dataset="coco-instances", option=options)
    work = MaskWork(config)
    (split,) = work.split_runs(identify_tokenizer("small"), "cpu")
    units = [unit for unit in split.units if unit.images == config.images_per_file]
    clock = Clock()
    payloads = [work.payload(unit) for unit in units]
    found = {"json_bytes": (folder / "root" / "instances.json").stat().st_size, "units": len(units)}
    found |= clock.read("read")
    clock = Clock()
    sizes = [len(pickle.dumps(payload, protocol=5)) for payload in payloads]
    found |= clock.read("pickle")
    annotations = sum(len(json.loads(record[2])) for payload in payloads for record in payload["records"])
    return {
        **found,
        "annotations_a_unit": round(annotations / len(units)),
        "payload_bytes_a_unit": round(sum(sizes) / len(units)),
    }


def rough_patches(height: int, width: int, number: int, seed: int) -> NDArray[np.uint32]:
    """Labels 1 to ``number``: patches around random points with rough outlines.

    Their RLE strings shrink to 0.45 of their bytes, as those of BSDS500's segments do; smooth outlines shrink more.
    """
    generator = np.random.default_rng(seed)

    def roughness() -> Any:
        layers = []
        for grain in (4, 16, 64):
            coarse = Image.fromarray(generator.normal(size=(height // grain, width // grain)).astype(np.float32))
            layers.append(grain * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)))
        return 0.2 * sum(layers)

    points = generator.uniform(size=(number, 2)) * [height, width]
    y_HW, x_HW = np.mgrid[:height, :width].astype(np.float32)
    y_HW, x_HW = y_HW + roughness(), x_HW + roughness()
    nearest_HW, labels_HW = np.full((height, width), np.inf, np.float32), np.zeros((height, width), np.uint32)
    for place, (y, x) in enumerate(points, start=1):
        distance_HW = (y_HW - y) ** 2 + (x_HW - x) ** 2
        labels_HW[distance_HW < nearest_HW] = place
        nearest_HW = np.minimum(nearest_HW, distance_HW)
    return labels_HW


def measure_tables(folder: Path, pictures: int = 12) -> dict[str, Any]:
    """Bytes of a row at 100 rough patches a picture of 2250x1500; pictures are mirrored as well, to have more."""
    rows, codes = [], random.Random(0)
    for picture in range(pictures):
        labels_HW = rough_patches(1500, 2250, 100, picture)
        for turn, turned_HW in enumerate((labels_HW, labels_HW[::-1], labels_HW[:, ::-1], labels_HW[::-1, ::-1])):
            scene = f"sa_{4 * picture + turn}"
            rows += [
                MaskRow(
                    source="sa1b",
                    image=f"sa_000000.tar/{scene}.jpg",
                    archive="sa_000000.tar",
                    scene=scene,
                    region=str(label),
                    rle=rle,
                    codes=(codes.randrange(256), codes.randrange(256)),
                )
                for label, rle in encode_labels(np.ascontiguousarray(turned_HW)).items()
            ]
    writer = MaskTableWriter(MaskVocabulary(), {"name": "small", "sha256": "0" * 64})
    clock = Clock()
    writer.add(rows)
    data = writer.finish() or b""
    found = {"rows": len(rows), **clock.read("write"), "file_bytes": len(data)}
    columns: Counter[str] = Counter()
    with open_table(io.BytesIO(data)) as table:
        for group in range(table.metadata.num_row_groups):
            row_group = table.metadata.row_group(group)
            for number in range(row_group.num_columns):
                column = row_group.column(number)
                columns[column.path_in_schema.split(".")[0]] += column.total_compressed_size
    return {
        **found,
        "bytes_a_row": round(len(data) / len(rows), 1),
        "counts_bytes_a_row": round(sum(len(row.rle.counts) for row in rows) / len(rows), 1),
        "column_bytes_a_row": {name: round(size / len(rows), 2) for name, size in columns.most_common(6)},
    }


class Answering:
    """An actor that does nothing."""

    def run(self) -> None:
        """One unit."""


def wait_among(_folder: Path, times: int = 300) -> dict[str, Any]:
    """What a unit costs the driver's loop, by the number of actors that are at work meanwhile: here, tasks that Ray
    finds no room for."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    never: Any = ray.remote(num_cpus=1, resources={"nowhere": 1})(lambda: None)
    actor_class: Any = ray.remote(Answering)
    actor = actor_class.remote()
    ray.get(actor.run.remote())
    found: dict[str, Any] = {}
    for number in (1, 8, 100, 800):
        busy = [never.remote() for _ in range(number)]
        clock = Clock()
        for _ in range(times):
            (done, *_), _ = ray.wait([*busy, actor.run.remote()], num_returns=1)
            ray.get(done)
        spent = clock.read("all")
        found[f"busy_{number}_ms"] = round(spent["all_s"] / times * 1000, 2)
        found[f"busy_{number}_cpu_ms"] = round(spent["all_cpu_s"] / times * 1000, 2)
    ray.shutdown()
    return found
