"""The two kinds of error that the project raises on purpose.

    SetupError    stop before the first shard (or as soon as the output cannot be written);
                  the sentence names the file or option and what to do
    RecordError   one source record cannot become a sample; it is counted, listed, and the run goes on

Anything else is a bug and shows its traceback.
"""

from __future__ import annotations

from typing import Literal, get_args

Reason = Literal[
    "annotation-missing",  # a record names an annotation that the file does not hold, or a file that is not there
    "annotation-image",  # the annotation belongs to another image than the record
    "annotation-unreadable",  # one image's own file of masks is truncated, too large, or of another format
    "archive-damaged",  # an archive ends early; what stood behind that place is lost
    "crowd-skipped",  # every target is a crowd, and crowds are skipped by option
    "frame-missing",  # a video, or its folder of frames, has fewer frames than its annotation speaks of
    "image-unlisted",  # a record names an image that the annotation file does not list
    "image-missing",  # the image file is not there
    "image-unreadable",  # the image file is truncated or is no image
    "image-format",  # the bytes are of another format than the file's ending says
    "image-size",  # the image's size differs from the size that its masks are drawn on
    "mask-empty",  # a mask without a foreground pixel
    "mask-invalid",  # a polygon or RLE that describes no mask
    "mask-size",  # an RLE or a label map of another size than its image
    "mask-unlisted",  # a label map holds a number that its annotation does not list
    "record-invalid",  # a record without the fields, or with fields of the wrong type
    "record-duplicate",  # a second record with the key of an earlier one
    "sentence-empty",  # nothing to ask for
    "target-conflict",  # the record says both 'no target' and a target
    "video-unreadable",  # the video file is truncated or is no video
]
REASONS: tuple[Reason, ...] = get_args(Reason)
# Faults of image files, which may be mended while the annotation files stay as they are.
IMAGE_REASONS: frozenset[Reason] = frozenset({"image-missing", "image-unreadable", "image-format", "image-size"})


class SetupError(Exception):
    """The run cannot start, or cannot write its output; the message says what to do."""


class RecordError(ValueError):
    """One source record, or one part of it, that cannot become a sample.

    Args:
        reason: one of ``REASONS``.
        message: one sentence, *what: expected, got*.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)  # its own arguments, so that it survives pickling
        self.reason: Reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]"
