"""Every number of a training run. The defaults are the published recipe; each says where it stands.

[paper] SAMTok, arXiv 2601.16093, section 4 and its supplement. [release] the published training configuration and
loss (the official release's and CycleGRPO's VQ_SAM2). [PointRend] arXiv 1912.08193. Where a number says nothing, it
is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from samtok_data.errors import SetupError
from tokenizer_model.config import SAMTOK_256X2, SMALL, TokenizerConfig

Part = Literal["image_encoder", "prompt_encoder", "mask_encoder", "mask_decoder"]
Precision = Literal["fp32", "bf16"]

ARCHITECTURES = {"samtok-256x2": SAMTOK_256X2, "small": SMALL}

_SEEDS = 2**63  # torch's generators take no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Weights and sampling of the loss.

    Attributes:
        bce: weight of the binary cross-entropy [release: 2.0].
        dice: weight of the Dice loss [release: 0.5].
        commitment: weight of the commitment term [release: 1.0].
        cut: logit that stands for a chance of a half [release: 0, though its masks are cut at 0.5, a chance of 0.62].
        dice_smooth: added to numerator and denominator of Dice [release: 1.0].
        points: sampled of each mask [release: 12544, as Mask2Former has it]. 0: the loss looks at every logit, as it
            should where there are few of them: of a small mask a sample would hardly see anything.
        oversample: candidates for each point drawn by uncertainty [PointRend: 3].
        importance: share of the points that are the most uncertain candidates [PointRend: 0.75].
        bypass: share of the masks that are decoded from z itself instead of its codes, at the first step; it falls
            in a straight line [release: 0]. A network from random weights learns sooner what codes are for.
        bypass_until: the part of the run after which it is 0.
    """

    bce: float = 2.0
    dice: float = 0.5
    commitment: float = 1.0
    cut: float = 0.0
    dice_smooth: float = 1.0
    points: int = 12_544
    oversample: float = 3.0
    importance: float = 0.75
    bypass: float = 0.0
    bypass_until: float = 0.5

    def __post_init__(self) -> None:
        for name in ("bce", "dice", "commitment", "dice_smooth"):
            _check(0 <= getattr(self, name) < math.inf, f"losses.{name}", "0 or more", getattr(self, name))
        _check(math.isfinite(self.cut), "losses.cut", "a finite number", self.cut)
        _check(self.points >= 0, "losses.points", "0 or more", self.points)
        _check(1 <= self.oversample < math.inf, "losses.oversample", "at least 1", self.oversample)
        for name in ("importance", "bypass"):
            _check(0 <= getattr(self, name) <= 1, f"losses.{name}", "from 0 to 1", getattr(self, name))
        _check(0 < self.bypass_until <= 1, "losses.bypass_until", "above 0, to 1", self.bypass_until)

    @property
    def uncertain(self) -> int:
        """Points of a mask that are chosen by uncertainty; the others are anywhere."""
        return int(self.importance * self.points)

    @property
    def candidates(self) -> int:
        """Points of a mask among which the uncertain ones are chosen."""
        return int(self.oversample * self.points)

    @property
    def drawn(self) -> int:
        """Points that are drawn of a mask: candidates, and those that are anywhere."""
        return self.candidates + self.points - self.uncertain


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    """AdamW and its schedule.

    Attributes:
        learning_rate: after the warm-up [release: 4e-5].
        betas: of AdamW [release: 0.9, 0.999].
        weight_decay: of AdamW [release: 0.05].
        clip: largest norm of the gradient [release: 1.0].
        warm_up: share of the steps in which the rate rises from 0 [release: 0.05]; a cosine to 0 follows.
        codebook_decay: of the moving averages of the codebooks [release: 0.99].
    """

    learning_rate: float = 4e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.05
    clip: float = 1.0
    warm_up: float = 0.05
    codebook_decay: float = 0.99

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            _check(0 < value < math.inf, f"optimisation.{name}", "above 0", value)
        _check(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            "optimisation.betas",
            "two of 0 to 1",
            self.betas,
        )
        _check(0 <= self.weight_decay < math.inf, "optimisation.weight_decay", "0 or more", self.weight_decay)
        _check(0 <= self.warm_up < 1, "optimisation.warm_up", "from 0 to below 1", self.warm_up)
        _check(0 < self.codebook_decay < 1, "optimisation.codebook_decay", "between 0 and 1", self.codebook_decay)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What a training example may differ by from its source. The published training changes nothing.

    Attributes:
        crop: smallest share of the image's area that a random crop keeps; 1: the whole image.
        stretch: largest factor by which a crop's aspect differs from the image's; 1: none.
        flip: chance of a mirror image.
        colour: strength of random brightness, contrast, saturation and tint; 0: none.
        blur: chance of a lower resolution, as of a small photograph that was enlarged.
    """

    crop: float = 1.0
    stretch: float = 1.0
    flip: float = 0.0
    colour: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        _check(0 < self.crop <= 1, "augmentation.crop", "above 0, to 1", self.crop)
        _check(1 <= self.stretch <= 4, "augmentation.stretch", "from 1 to 4", self.stretch)
        for name in ("flip", "colour", "blur"):
            _check(0 <= getattr(self, name) <= 1, f"augmentation.{name}", "from 0 to 1", getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A training run: everything that changes its numbers, and nothing that does not.

    Attributes:
        architecture: a name of ``ARCHITECTURES``, or the fields of a TokenizerConfig.
        sam2_weights: SAM 2.1's own checkpoint to start from; None: random weights [paper: SAM 2.1 large].
        initial: a tokenizer to go on from, as ``--tokenizer`` names one; None: none. Not both.
        train: the parts that learn; the others keep their weights [release: mask encoder and mask decoder]. The
            decoder's heads for IoU and object score never learn: no loss reaches them.
        steps: of the optimiser [209 million masks in batches of 1024: one pass].
        batch: masks of a step, over all workers [release: 1024].
        masks_per_image: at most so many masks of an image in one step; 1 is the published way.
        seed: of sampling, augmentation, points, restarts and initial weights.
        precision: ``bf16`` for autocast as published, ``fp32``.
        losses: see there.
        optimisation: see there.
        augmentation: see there.
    """

    architecture: str | TokenizerConfig = "samtok-256x2"
    sam2_weights: str | None = None
    initial: str | None = None
    train: tuple[Part, ...] = ("mask_encoder", "mask_decoder")
    steps: int = 204_000
    batch: int = 1024
    masks_per_image: int = 16
    seed: int = 0
    precision: Precision = "bf16"
    losses: Losses = field(default_factory=Losses)
    optimisation: Optimisation = field(default_factory=Optimisation)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if not isinstance(self.architecture, TokenizerConfig):
            known = isinstance(self.architecture, str) and self.architecture in ARCHITECTURES
            names = ", ".join(ARCHITECTURES)
            _check(known, "architecture", f"one of {names}, or its fields", self.architecture)
        for name in ("steps", "batch", "masks_per_image"):
            _check(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        _check(
            self.batch % self.masks_per_image == 0,
            "batch",
            f"a multiple of masks_per_image ({self.masks_per_image})",
            self.batch,
        )
        _check(0 <= self.seed < _SEEDS, "seed", "from 0 to 2^63 - 1", self.seed)
        _check(self.precision in get_args(Precision), "precision", "fp32 or bf16", self.precision)
        unknown = sorted(set(self.train) - set(get_args(Part)))
        _check(bool(self.train) and not unknown, "train", f"some of {', '.join(get_args(Part))}", unknown or "none")
        _check(not (self.sam2_weights and self.initial), "sam2_weights, initial", "one of them", "both")

    @property
    def config(self) -> TokenizerConfig:
        """The architecture."""
        return ARCHITECTURES[self.architecture] if isinstance(self.architecture, str) else self.architecture

    @property
    def images_per_step(self) -> int:
        """Images of a step, over all workers."""
        return self.batch // self.masks_per_image

    @property
    def json(self) -> dict[str, Any]:
        """The recipe as JSON values; ``from_json`` reads it."""
        values = asdict(self)
        values["architecture"] = self.architecture if isinstance(self.architecture, str) else self.config.json
        values["train"] = list(self.train)
        values["optimisation"]["betas"] = list(self.optimisation.betas)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Recipe:
        """Reads what ``json`` gives, or a part of it: what is not named has its default.

        Raises:
            SetupError: an unknown field, a value of another type or out of range; the message names the setting.
        """
        read = _mapping("recipe", values)
        if isinstance(read.get("architecture"), Mapping):
            try:
                read["architecture"] = TokenizerConfig.from_json(read["architecture"])
            except ValueError as error:
                raise SetupError(f"training configuration: architecture: {error}") from error
        for name, kind in (("losses", Losses), ("optimisation", Optimisation), ("augmentation", Augmentation)):
            if name in read:
                read[name] = _read(kind, name, _mapping(name, read[name]), f"{name}.")
        return _read(cls, "recipe", read, "")


def _mapping(name: str, values: Any) -> dict[str, Any]:
    _check(isinstance(values, Mapping), name, "a mapping of settings", values)
    return dict(values)


def _read(kind: type[Any], name: str, values: Mapping[str, Any], prefix: str) -> Any:
    known = {entry.name for entry in fields(kind)}
    unknown = sorted(set(values) - known, key=str)
    if unknown:
        raise SetupError(
            f"training configuration: {unknown[0]!r} is no setting of {name}; known are {', '.join(sorted(known))}"
        )
    return kind(**{key: _value(kind.__annotations__[key], prefix + key, value) for key, value in values.items()})


def _value(declared: str, name: str, value: Any) -> Any:
    """A value of the declared type, made of what YAML and JSON have for it."""
    if declared == "float":
        return _number(name, value)
    if declared == "int":
        _check(isinstance(value, int) and not isinstance(value, bool), name, "a whole number", value)
    elif declared == "str | None":
        _check(value is None or isinstance(value, str), name, "a text", value)
    elif declared.startswith("tuple["):
        _check(isinstance(value, list | tuple), name, "a list", value)
        if declared.startswith("tuple[float"):
            return tuple(_number(name, number) for number in value)
        _check(all(isinstance(part, str) for part in value), name, "a list of names", value)
        return tuple(value)
    return value


def _number(name: str, value: Any) -> float:
    """YAML reads 4e-5 as a text: its numbers want a dot."""
    _check(isinstance(value, str | int | float) and not isinstance(value, bool), name, "a number", value)
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise SetupError(f"training configuration: {name} should be a number, got {value!r}") from error


def _check(holds: bool, name: str, wanted: str, got: Any) -> None:
    if not holds:
        raise SetupError(f"training configuration: {name} should be {wanted}, got {got!r}")
