"""What a mask tokenizer is: everything that its weights must fit, and nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args

from samtok_data.words import MaskVocabulary

# The image encoders that the sam2 package configures, by the file of the package that does.
SAM2_BACKBONES = {
    "tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "base+": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}
SAM2_HIDDEN_SIZE = 256

PATCH_STRIDE = 4  # pixels of a patch of the trunk's first stage; also the side of a logit
EMBEDDING_STRIDE = 16  # pixels of a cell of the image embedding
LAST_STRIDE = 32  # pixels of a cell of the trunk's last stage
NUM_STAGES = 4
NUM_HEADS = 8
LEAST_FSQ_LEVEL = 3  # finite scalar quantisation rounds to at least -1, 0, 1

QuantizerKind = Literal["residual", "vq", "fsq"]
# What the network computes in; quantisation is always fp32.
Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hiera:
    """The widths of a Hiera trunk (arXiv 2306.00989) that sam2 has no file for.

    Attributes:
        embed_dim: channels of the first stage; they double at each stage.
        num_heads: attention heads of the first stage; they double too.
        stages: blocks of each of the four stages.
        global_blocks: numbers of the blocks, counted over all stages from 0, that attend to the whole image.
        windows: side of the attention window of each stage, in cells.
    """

    embed_dim: int
    num_heads: int
    stages: tuple[int, ...]
    global_blocks: tuple[int, ...]
    windows: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("embed_dim", "num_heads"):
            _check_count(name, getattr(self, name))
        for name in ("stages", "windows"):
            numbers = getattr(self, name)
            if len(numbers) != NUM_STAGES:
                raise ValueError(f"{name} must have {NUM_STAGES} numbers, got {len(numbers)}")
            for number in numbers:
                _check_count(name, number)
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim must be a multiple of num_heads ({self.num_heads}), got {self.embed_dim}")
        # The first block of a stage still uses the window of the stage before, and halves it.
        if any(window % 2 for window in self.windows[:-1]):
            raise ValueError(f"windows must be even up to the last, got {self.windows}")
        for block in self.global_blocks:
            if not 0 <= block < sum(self.stages):
                raise ValueError(f"global_blocks must be in 0..{sum(self.stages) - 1}, got {block}")
            # The first block of a later stage halves the windows, which one that sees the whole image has not.
            if block in itertools.accumulate(self.stages[:-1]):
                raise ValueError(f"global_blocks must not name the first block of a stage, got {block}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the four stages."""
        return tuple(self.embed_dim * 2**stage for stage in range(NUM_STAGES))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerConfig:
    """The architecture of a mask tokenizer.

    Attributes:
        backbone: a key of ``SAM2_BACKBONES``, or the widths of another trunk.
        image_size: side of the square that an image is resized to, in pixels; a multiple of 32.
        hidden_size: channels of image embedding, prompts, mask embedding and codes; 256 with a backbone of sam2.
        codebook_size: codes of each level.
        depth: levels, that is codes of a mask.
        quantizer: ``residual``; ``vq``, the residual one of one level; or ``fsq``, finite scalar quantisation
            (arXiv 2309.15505), of one level too.
        shared: whether all levels choose from one codebook; ``residual`` only.
        fsq_levels: values that each scalar is rounded to, at least 3; their product is ``codebook_size``. ``fsq`` only.
    """

    backbone: str | Hiera
    image_size: int
    hidden_size: int
    codebook_size: int
    depth: int
    quantizer: QuantizerKind = "residual"
    shared: bool = False
    fsq_levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("image_size", "hidden_size", "codebook_size", "depth"):
            _check_count(name, getattr(self, name))
        if self.image_size % LAST_STRIDE:
            raise ValueError(f"image_size must be a multiple of {LAST_STRIDE}, got {self.image_size}")
        if self.hidden_size % (2 * NUM_HEADS):
            raise ValueError(f"hidden_size must be a multiple of {2 * NUM_HEADS}, got {self.hidden_size}")
        if isinstance(self.backbone, Hiera):
            window = PATCH_STRIDE * self.backbone.windows[0]
            if self.image_size % window:
                raise ValueError(f"image_size must be a multiple of the first window ({window}), got {self.image_size}")
        elif self.backbone not in SAM2_BACKBONES:
            raise ValueError(f"backbone must be one of {', '.join(SAM2_BACKBONES)}, got {self.backbone!r}")
        elif self.hidden_size != SAM2_HIDDEN_SIZE:
            raise ValueError(
                f"hidden_size must be {SAM2_HIDDEN_SIZE} with backbone {self.backbone!r}, got {self.hidden_size}"
            )
        self._check_quantizer()

    def _check_quantizer(self) -> None:
        kinds = get_args(QuantizerKind)
        if self.quantizer not in kinds:
            raise ValueError(f"quantizer must be one of {', '.join(kinds)}, got {self.quantizer!r}")
        if self.quantizer != "residual" and self.depth != 1:
            raise ValueError(f"depth must be 1 with quantizer {self.quantizer!r}, got {self.depth}")
        if not isinstance(self.shared, bool):
            raise ValueError(f"shared must be true or false, got {self.shared!r}")
        if not isinstance(self.fsq_levels, tuple):
            raise ValueError(f"fsq_levels must be a tuple, got {self.fsq_levels!r}")
        if self.shared and self.quantizer != "residual":
            raise ValueError(f"shared is for quantizer 'residual' only, got {self.quantizer!r}")
        if self.quantizer == "fsq":
            self._check_fsq_levels()
        elif self.fsq_levels:
            raise ValueError(f"fsq_levels are for quantizer 'fsq' only, got {self.fsq_levels}")

    def _check_fsq_levels(self) -> None:
        for level in self.fsq_levels:
            _check_count("fsq_levels", level)
        if not self.fsq_levels or min(self.fsq_levels) < LEAST_FSQ_LEVEL:
            raise ValueError(f"fsq_levels must be one or more, each at least {LEAST_FSQ_LEVEL}, got {self.fsq_levels}")
        if math.prod(self.fsq_levels) != self.codebook_size:
            raise ValueError(
                f"codebook_size must be the product of fsq_levels ({math.prod(self.fsq_levels)}), "
                f"got {self.codebook_size}"
            )

    @property
    def num_codebooks(self) -> int:
        """Codebooks that the weights hold: one for each level, one that is shared, or none (``fsq``)."""
        if self.quantizer == "fsq":
            return 0
        return 1 if self.shared else self.depth

    @property
    def embedding_side(self) -> int:
        """Cells along a side of the image embedding."""
        return self.image_size // EMBEDDING_STRIDE

    @property
    def logit_side(self) -> int:
        """Pixels along a side of a mask prompt and of the decoder's logits."""
        return self.image_size // PATCH_STRIDE

    @property
    def vocabulary(self) -> MaskVocabulary:
        """How the codes are spelt."""
        return MaskVocabulary(self.codebook_size, self.depth)

    @property
    def json(self) -> dict[str, Any]:
        """The configuration as JSON values; ``from_json`` reads it."""
        return _with_lists(asdict(self))

    @classmethod
    def from_json(cls, values: Any) -> TokenizerConfig:
        """Reads what ``json`` gives. Fields with a default may be missing: earlier files have no quantizer's.

        Raises:
            ValueError: a field is missing, unknown or out of range.
        """
        read = _fields_of(cls, "tokenizer configuration", values)
        if not isinstance(read["backbone"], str):
            widths = _fields_of(Hiera, "backbone", read["backbone"])
            _make_tuples(widths, ("stages", "global_blocks", "windows"))
            read["backbone"] = Hiera(**widths)
        _make_tuples(read, ("fsq_levels",))
        return cls(**read)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def _fields_of(kind: type[TokenizerConfig | Hiera], what: str, values: Any) -> dict[str, Any]:
    expected = {field.name for field in fields(kind)}
    required = {field.name for field in fields(kind) if field.default is MISSING}
    if not isinstance(values, Mapping):
        raise ValueError(f"{what}: expected an object, got {values!r}")
    if not required <= set(values) <= expected:
        raise ValueError(f"{what}: expected the fields {sorted(expected)}, got {sorted(values)}")
    return dict(values)


def _make_tuples(values: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if name in values:
            if not isinstance(values[name], list):
                raise ValueError(f"{name} must be a list, got {values[name]!r}")
            values[name] = tuple(values[name])


def _with_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_lists(part) for name, part in value.items()}
    return list(value) if isinstance(value, tuple) else value


SAMTOK_256X2 = TokenizerConfig(backbone="large", image_size=1024, hidden_size=256, codebook_size=256, depth=2)
"""The published tokenizer (SAMTok, arXiv 2601.16093)."""

SMALL = TokenizerConfig(
    backbone=Hiera(embed_dim=48, num_heads=1, stages=(1, 2, 5, 1), global_blocks=(5, 7), windows=(8, 4, 16, 8)),
    image_size=512,
    hidden_size=128,
    codebook_size=256,
    depth=2,
)
"""A tokenizer of the same architecture that one CPU core runs."""
