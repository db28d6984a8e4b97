"""``samtok-data decode``: the words of a shard back to masks, drawn over their images."""

from __future__ import annotations

import io
import itertools
import logging
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from pipelines.drawing import draw_masks
from samtok_data import masks
from samtok_data.errors import SetupError
from samtok_data.masks import Mask
from samtok_data.outputs import ENDINGS, SplitOutput
from samtok_data.samples import Sample
from samtok_data.scenes import WHOLE_IMAGE
from samtok_data.shards import read_shard
from samtok_data.storage import Folder

if TYPE_CHECKING:
    from tokenizer_model import MaskTokenizer

logger = logging.getLogger(__name__)

_CAPTION_HEIGHT = 16


@dataclass(frozen=True, slots=True)
class DecodedSample:
    """A sample whose words were decoded.

    Attributes:
        key: of the sample.
        overlay: the image with the source masks (left) and the decoded ones (right), its text below.
        ious: of each decoded mask with the mask that was tokenised.
    """

    key: str
    overlay: Image.Image
    ious: tuple[float, ...]


def decode_samples(
    samples: Sequence[Sample], tokenizer: MaskTokenizer, images_root: str | None
) -> Iterator[DecodedSample]:
    """Decodes the words of samples; neighbours that show the same image cost one backbone pass.

    Args:
        samples: of a shard; only masks of the whole image are drawn.
        tokenizer: the one that made the words.
        images_root: where images lie that the shard only refers to.

    Raises:
        SetupError: the shard has no images and ``images_root`` was not given.
    """
    for _, group in itertools.groupby(samples, key=lambda sample: sample.record["image"][0]):
        neighbours = list(group)
        picture = _picture(neighbours[0], images_root)
        found = [[mask for mask in sample.record["masks"] if mask["view"] == WHOLE_IMAGE] for sample in neighbours]
        words = [mask["word"] for masks_of in found for mask in masks_of]
        codes_ND = np.array([tokenizer.vocabulary.parse(word) for word in words], np.int64)
        decoded = iter(tokenizer.decode([picture], [codes_ND.reshape(len(words), tokenizer.vocabulary.depth)])[0])
        for sample, masks_of in zip(neighbours, found, strict=True):
            sources = [masks.decode(masks.read_segmentation(mask["rle"], *mask["rle"]["size"])) for mask in masks_of]
            results = list(itertools.islice(decoded, len(sources)))
            ious = tuple(masks.intersection_over_union(*pair) for pair in zip(sources, results, strict=True))
            yield DecodedSample(sample.key, _side_by_side(picture, sources, results, _caption(sample, ious)), ious)


def _picture(sample: Sample, images_root: str | None) -> Image.Image:
    if sample.images:
        data = sample.images[min(sample.images, key=len)]
    elif images_root is None:
        raise SetupError("this shard refers to its images by name: give --images-root")
    else:
        name = sample.record["image"][0]
        try:
            data = Folder(images_root).read(name)
        except (OSError, ValueError) as error:  # ValueError: a name that would leave the folder
            raise SetupError(f"--images-root {images_root}: {name} cannot be read: {error}") from error
    with Image.open(io.BytesIO(data)) as opened:
        return opened.convert("RGB")


def _caption(sample: Sample, ious: Sequence[float]) -> str:
    question = sample.record["conversations"][0]["value"].replace("<image>", "").strip()
    measured = "IoU " + ", ".join(f"{iou:.2f}" for iou in ious) if ious else "no target"
    return f"{question}   [{measured}]"


def _side_by_side(picture: Image.Image, left: Sequence[Mask], right: Sequence[Mask], caption: str) -> Image.Image:
    sheet = Image.new("RGB", (2 * picture.width, picture.height + _CAPTION_HEIGHT), "white")
    sheet.paste(draw_masks(picture, left), (0, 0))
    sheet.paste(draw_masks(picture, right), (picture.width, 0))
    ImageDraw.Draw(sheet).text((4, picture.height + 2), caption, fill="black")
    return sheet


def decode_shard(
    shard: str, *, tokenizer: str | None, images_root: str | None, limit: int | None
) -> Iterator[DecodedSample]:
    """Decodes a shard with the tokenizer that made it.

    Args:
        shard: path or address of a tar.
        tokenizer: where that tokenizer is; None: the embedded or the published one, whichever made the shard.
        images_root: see ``decode_samples``.
        limit: only the first so many samples.

    Raises:
        SetupError: no such shard, a damaged one, or one whose words another tokenizer made.
    """
    from tokenizer_model import NAMES, open_tokenizer

    folder = Folder(posixpath.dirname(shard) or ".")
    name = posixpath.basename(shard)
    if name.endswith(ENDINGS["table"]):
        raise SetupError(f"{shard}: a table of masks holds no images to draw on; decode takes shards of dialogues")
    try:
        samples = list(itertools.islice(read_shard(folder, name), limit))
    except FileNotFoundError as error:
        raise SetupError(f"{shard}: no such shard") from error
    except ValueError as error:
        raise SetupError(f"{shard}: {error}") from error
    made_by = _made_by(folder, name)
    if tokenizer is None:
        if made_by["name"] not in NAMES:
            raise SetupError(f"{shard} was made by the tokenizer {made_by['name']}: say where it is with --tokenizer")
        tokenizer = made_by["name"]
    model = open_tokenizer(tokenizer)
    if model.identity.sha256 != made_by["sha256"]:
        raise SetupError(
            f"{shard} was made by the tokenizer {made_by['name']} (sha256 {made_by['sha256'][:12]}), not by "
            f"{model.identity.name} ({model.identity.sha256[:12]}): its words mean other masks there; give --tokenizer"
        )
    if model.identity.warning:
        logger.warning("%s", model.identity.warning)
    yield from decode_samples(samples, model, images_root)


def _made_by(folder: Folder, name: str) -> Mapping[str, str]:
    """Name and sha256 of the tokenizer that made a shard's words, by the bookkeeping beside it."""
    output = SplitOutput.at(folder)
    fingerprint = output.fingerprint()
    entries = output.finished(fingerprint).values() if fingerprint is not None else ()
    for entry in entries:
        if entry.shard is not None and entry.shard.name == name:
            return entry.tokenizer
    raise SetupError(f"{folder}/{name} is not a shard of the run that lies there")
