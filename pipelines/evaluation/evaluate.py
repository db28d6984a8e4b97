"""``samtok-data eval-tokenizer``: measures a tokenizer on every mask of a mix and writes a report."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from converters.masks.source import MaskedImage, MaskSource
from pipelines.config import DEFAULT_TOKENIZER
from pipelines.evaluation import baseline, page
from pipelines.evaluation.baseline import ShapeCodebook
from pipelines.evaluation.examples import Examples
from pipelines.evaluation.measure import LOGIT_THRESHOLDS, OpenImage, Reconstruction, reconstructions
from pipelines.evaluation.measurement import Measurement
from pipelines.evaluation.progress import SourceProgress
from pipelines.evaluation.rejects import RejectLog
from pipelines.evaluation.report import BaselineReport, Report, SourceReport
from pipelines.evaluation.words import WordStatistics
from pipelines.images import ahead
from pipelines.mixes import open_sources
from samtok_data.errors import RecordError, SetupError
from samtok_data.rejects import Reject
from samtok_data.storage import TEMPORARY, Folder
from tokenizer_model import open_tokenizer
from tokenizer_model.config import Precision

if TYPE_CHECKING:
    from tokenizer_model import MaskTokenizer

logger = logging.getLogger(__name__)

JSON_NAME = "report.json"
PAGE_NAME = "index.html"

_PROBE = "report.json.probe"
_THREADS = 4
_IMAGES_AHEAD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """What ``samtok-data eval-tokenizer`` was asked to do.

    Attributes:
        mix: file of the sources (converters.masks.registry); their weights do not count.
        out: folder or address for the report.
        tokenizer: ``samtok-256x2``, ``small`` or a file's address.
        baseline_mix: file of the sources that the image-blind codebook is made of; None: it is not measured.
        device: ``cpu``, ``cuda`` or None for a GPU where there is one.
        precision: ``fp32``, or ``fp16`` or ``bf16`` on a GPU.
        limit: only the first so many images of each source.
        seed: of the examples that are shown, and of the image-blind codebook.
    """

    mix: str
    out: str
    tokenizer: str = DEFAULT_TOKENIZER
    baseline_mix: str | None = None
    device: str | None = None
    precision: Precision = "fp32"
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise SetupError(f"--limit should be at least 1, got {self.limit}")
        if not self.out:
            raise SetupError("--out should be a folder, got nothing")


def evaluate(config: EvaluationConfig) -> Report:
    """Measures and writes ``report.json`` and ``index.html``, each whole or not at all.

    Raises:
        SetupError: the output cannot be written; the mix, the tokenizer or the device cannot be used; a source has no
            mask. All but the last, where no picture of a source can be opened, is known before measuring starts.
    """
    out = Folder(config.out)
    _require_writable(out)
    sources = [source for source, _ in open_sources(config.mix, out)]
    training = [] if config.baseline_mix is None else [found for found, _ in open_sources(config.baseline_mix, out)]
    for source in sources:
        _require_masks(source)
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = open_tokenizer(config.tokenizer, device=device, precision=config.precision)
    if tokenizer.identity.warning:
        logger.warning("%s", tokenizer.identity.warning)
    run = _Run(config, tokenizer, *_fitted(training, config.seed))
    start = time.monotonic()
    for place, source in enumerate(sources, start=1):
        run.measure(source, f"{source.name} ({place} of {len(sources)})")
    report = run.report(device=str(tokenizer.device), seconds=time.monotonic() - start)
    # The JSON last: where it is, the page is too.
    out.write(PAGE_NAME, page.html(report, run.examples).encode(errors="backslashreplace"))
    out.write(JSON_NAME, report.text.encode())
    out.remove(TEMPORARY)
    return report


class _Run:
    """What an evaluation has gathered so far."""

    def __init__(
        self,
        config: EvaluationConfig,
        tokenizer: MaskTokenizer,
        shapes: ShapeCodebook | None,
        fitted: BaselineReport | None,
    ) -> None:
        self._config, self._tokenizer, self._shapes, self._fitted = config, tokenizer, shapes, fitted
        vocabulary = tokenizer.vocabulary
        self.measurement = Measurement(vocabulary.codebook_size, vocabulary.depth)
        self.examples = Examples(vocabulary, tokenizer.cut, seed=config.seed)
        self.sources: dict[str, SourceReport] = {}

    def measure(self, source: MaskSource, label: str) -> None:
        """Measures one source.

        Raises:
            SetupError: none of its images could be measured.
        """
        rejects = RejectLog()
        limit = self._config.limit
        total, unit = (source.num_units, "unit") if limit is None else (limit, "image")
        with SourceProgress(label, total=total, unit=unit) as progress:
            images = _opened(source, limit, rejects, progress)
            for found in reconstructions(self._tokenizer, images, shapes=self._shapes):
                self._add(found)
                progress.add(len(found.image.regions))
        if source.name not in self.measurement.sources:
            raise SetupError(f"source {source.name}: no image with masks can be opened; rejects: {rejects.text}")
        self.sources[source.name] = SourceReport(source.settings, rejects)

    def _add(self, found: Reconstruction) -> None:
        self.measurement.add(found.measured)
        self.examples.add(found)
        if self._fitted is not None and found.shape_codes_nL is not None:
            self._fitted.words.add(found.measured.rles, found.shape_codes_nL)

    def report(self, *, device: str, seconds: float) -> Report:
        """What was found."""
        config = self._config
        settings = {
            "mix": config.mix,
            "baseline_mix": config.baseline_mix,
            "device": device,
            "precision": config.precision,
            "limit": config.limit,
            "seed": config.seed,
            "logit_thresholds": list(LOGIT_THRESHOLDS),
        }
        return Report(
            tokenizer=self._tokenizer.identity,
            settings=settings,
            measurement=self.measurement,
            sources=self.sources,
            baseline=self._fitted,
            seconds=seconds,
        )


def _require_writable(out: Folder) -> None:
    """Refuses a folder that the report could not be written to, hours before it would be."""
    try:
        out.write(_PROBE, b"")
        out.remove(_PROBE)
        out.remove(TEMPORARY)
    except OSError as error:
        raise SetupError(f"--out {out}: cannot be written: {error.strerror or error}; give another folder") from error


def _require_masks(source: MaskSource) -> None:
    """Refuses a source that no mask can be read of; stops at the first, and opens no picture."""
    rejects = RejectLog()
    for one in itertools.chain.from_iterable(source.read(unit) for unit in range(source.num_units)):
        if isinstance(one, MaskedImage):
            if one.scene.regions:
                return
        else:
            rejects.add(one)
    raise SetupError(f"source {source.name}: it has no mask" + (f"; rejects: {rejects.text}" if len(rejects) else ""))


def _fitted(training: Sequence[MaskSource], seed: int) -> tuple[ShapeCodebook | None, BaselineReport | None]:
    """The image-blind codebook of training sources."""
    if not training:
        return None, None
    units = sum(source.num_units for source in training)
    with SourceProgress("image-blind codebook", total=units, unit="unit") as progress:
        sample = baseline.sample_shapes(training, seed=seed, progress=progress)
    logger.info("image-blind codebook: clustering %d of %d masks", len(sample.shapes_MPP), sample.seen)
    shapes = ShapeCodebook.fit(sample.shapes_MPP, seed=seed)
    vocabulary = shapes.vocabulary
    report = BaselineReport(
        sources={source.name: source.settings for source in training},
        rows=vocabulary.codebook_size,
        levels=vocabulary.depth,
        side=shapes.side,
        masks=len(sample.shapes_MPP),
        seen=sample.seen,
        rejects=sample.rejects,
        words=WordStatistics(vocabulary.codebook_size, vocabulary.depth),
    )
    return shapes, report


def _opened(source: MaskSource, limit: int | None, rejects: RejectLog, progress: SourceProgress) -> Iterator[OpenImage]:
    """The images of a source with their pictures, in its order; what cannot be opened goes to the rejects."""

    def opened(image: MaskedImage) -> OpenImage | Reject:
        scene = image.scene
        try:
            picture = image.open()
        except RecordError as error:
            return Reject.of(error, scene.id, {"image": scene.image, "masks": len(scene.regions)})
        return OpenImage(source.name, scene.id, picture, tuple((region.id, region.rle) for region in scene.regions))

    images = itertools.islice(_images(source, limit is None, rejects, progress), limit)
    for one in ahead(opened, images, threads=_THREADS, limit=_IMAGES_AHEAD):
        if limit is not None:
            progress.did()
        if isinstance(one, Reject):
            _reject(one, rejects, progress)
        else:
            yield one


def _images(
    source: MaskSource, counts_units: bool, rejects: RejectLog, progress: SourceProgress
) -> Iterator[MaskedImage]:
    for unit in range(source.num_units):
        for one in source.read(unit):
            if isinstance(one, Reject):
                _reject(one, rejects, progress)
            elif one.scene.regions:
                yield one
        if counts_units:
            progress.did()


def _reject(reject: Reject, rejects: RejectLog, progress: SourceProgress) -> None:
    rejects.add(reject)
    progress.num_rejects += 1
