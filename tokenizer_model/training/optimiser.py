"""A step of training: gradients of a global batch, one move of the weights, one move of the codebooks.

Works in one process without a process group, and in several with one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tokenizer_model.quantizers.base import CodebookUse
from tokenizer_model.tokenizer import MaskTokenizer
from tokenizer_model.training.examples import Examples
from tokenizer_model.training.recipe import Optimisation, Recipe
from tokenizer_model.training.step import TrainingPass

TERMS: tuple[str, ...] = ("loss", "bce", "dice", "commitment")


class NotFinite(Exception):
    """The loss or its gradient is NaN or infinite; weights and codebooks are as before the step.

    Args:
        step: number of the step, from 0.
        what: which term, or the gradient.
        images: of this worker's batch, those whose own loss is not finite.
    """

    def __init__(self, step: int, what: str, images: tuple[int, ...]) -> None:
        super().__init__(step, what, images)
        self.step, self.what, self.images = step, what, images


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step came to, over all workers.

    Attributes:
        terms: mean over the masks of ``loss`` (weighted) and of ``bce``, ``dice`` and ``commitment`` (not weighted).
        grad_norm: before it was clipped.
        learning_rate: that the step was made with.
        num_masks: of the step.
        use: of the codebooks, by this step's masks.
    """

    terms: Mapping[str, float]
    grad_norm: float
    learning_rate: float
    num_masks: int
    use: CodebookUse


class Optimiser:
    """Model, AdamW, its schedule and the number of the next step.

    Args:
        model: on its device; what learns is set here.
        recipe: all numbers.
        images_per_pass: a step's images go through the network in parts of so many; gradients add up.
        compiled: whether torch.compile is used.
    """

    def __init__(self, model: MaskTokenizer, recipe: Recipe, *, images_per_pass: int, compiled: bool = False) -> None:
        self.model, self.recipe, self.images_per_pass = model, recipe, images_per_pass
        self.step_number = 0
        self._pass: nn.Module = TrainingPass(model, recipe)
        self._plain = self._pass
        self.parameters = [one for one in model.parameters() if one.requires_grad]
        settings = recipe.optimisation
        self.adam = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=model.device.type == "cuda",
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adam, lambda step: rate_at(step, recipe.steps, settings))
        if compiled:
            _compile(model)
        self.is_distributed = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if self.is_distributed:
            index = [model.device.index or 0] if model.device.type == "cuda" else None
            self._pass = DistributedDataParallel(self._pass, device_ids=index)

    def step(self, examples: Examples) -> StepReport:
        """Learns from this worker's part of a global batch.

        Args:
            examples: on any device; at least one image, of no image more masks than the recipe's ``masks_per_image``,
                and over all workers at least one mask.

        Raises:
            NotFinite: nothing was changed.
        """
        world = dist.get_world_size() if self.is_distributed else 1
        device, parts = self.model.device, self._parts(examples)
        total = self._summed(torch.tensor(float(examples.num_masks), device=device))
        sums, embeddings = torch.zeros(len(TERMS), dtype=torch.float64, device=device), [self._no_embeddings()]
        self.adam.zero_grad(set_to_none=True)
        if self.is_distributed and not parts:
            self._wait_for_others(examples)
        for index, (part, seeds) in enumerate(parts):
            is_last = index == len(parts) - 1
            with contextlib.nullcontext() if is_last or not self.is_distributed else self._pass.no_sync():  # type: ignore[operator]
                terms = self._pass(part.to(device), seeds, self._bypass())
                # Data-parallel training takes the mean over workers; the loss is the mean over all masks.
                (terms.loss * world / total).backward()
            sums += torch.stack([terms.loss.detach(), terms.bce, terms.dice, terms.commitment]).double()
            embeddings.append(terms.z_ND)
        means: dict[str, float] = dict(zip(TERMS, (self._summed(sums) / total).tolist(), strict=True))
        self._check(means, examples)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.optimisation.clip)
        if not math.isfinite(float(norm)):
            raise NotFinite(self.step_number, "gradient", self._broken(examples))
        learning_rate = self.adam.param_groups[0]["lr"]
        self.adam.step()
        use = self.model.quantizer.update(
            torch.cat(embeddings), decay=self.recipe.optimisation.codebook_decay, seed=self._seed("codebooks")
        )
        self.schedule.step()
        self.step_number += 1
        return StepReport(means, float(norm), learning_rate, int(total), use)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, except the examples. No copies: the next step changes them."""
        return {
            "step": self.step_number,
            "model": self.model.state_dict(),
            "adam": self.adam.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``state`` gave; its shapes must fit. Adam's tensors are taken over, not copied."""
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])
        self.schedule.last_epoch = state["schedule"]["last_epoch"]  # the rate itself is among Adam's settings
        self.step_number = state["step"]

    def _no_embeddings(self) -> Tensor:
        return self.model.network.no_mem_embed.new_empty(0, self.model.config.hidden_size).detach()

    def _wait_for_others(self, examples: Examples) -> None:
        """Takes part in the exchange of gradients with those of nothing: this worker's images have no mask."""
        image, side = examples.split(1)[0], self.model.config.logit_side
        blank = dataclasses.replace(
            image,
            prompts=image.prompts.new_zeros(1, side, side),
            targets=image.targets.new_zeros(1, side, side),
            boxes=image.boxes.new_zeros(1, 4),
            owners=image.owners.new_zeros(1),
        )
        (0 * self._pass(blank.to(self.model.device), self._image_seeds(image), self._bypass()).loss).backward()

    def _parts(self, examples: Examples) -> list[tuple[Examples, list[int]]]:
        """What goes through the network at once, and the seeds of its images; parts without a mask are left out."""
        seeds, size = self._image_seeds(examples), self.images_per_pass
        parts = enumerate(examples.split(size))
        return [(part, seeds[index * size : (index + 1) * size]) for index, part in parts if part.num_masks]

    def _image_seeds(self, examples: Examples) -> list[int]:
        """Of each image the seed of this step: by its number in the global batch, however that is divided."""
        first = 0
        if self.is_distributed:
            first = dist.get_rank() * (self.recipe.images_per_step // dist.get_world_size())
        return [self._seed(str(first + index)) for index in range(examples.num_images)]

    def _seed(self, what: str) -> int:
        text = f"{self.recipe.seed}/{self.step_number}/{what}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

    def _bypass(self) -> float:
        settings = self.recipe.losses
        return settings.bypass * max(0.0, 1 - self.step_number / (settings.bypass_until * self.recipe.steps))

    def _summed(self, tensor: Tensor) -> Tensor:
        if self.is_distributed:
            dist.all_reduce(tensor)
        return tensor

    def _check(self, means: Mapping[str, float], examples: Examples) -> None:
        broken = [name for name in ("bce", "dice", "commitment", "loss") if not math.isfinite(means[name])]
        if broken:
            raise NotFinite(self.step_number, broken[0], self._broken(examples))

    @torch.no_grad()
    def _broken(self, examples: Examples) -> tuple[int, ...]:
        losses = [
            self._plain(one.to(self.model.device), [seed], self._bypass()).loss if one.num_masks else torch.zeros(())
            for one, seed in zip(examples.split(1), self._image_seeds(examples), strict=True)
        ]
        return tuple(index for index, loss in enumerate(losses) if not math.isfinite(float(loss)))


def rate_at(step: int, steps: int, settings: Optimisation) -> float:
    """The learning rate of a step as a fraction of the full one: linear from almost 0, then a cosine to 0.

    Args:
        step: from 0 on.
        steps: of the whole run.
        settings: share of the warm-up.
    """
    warm = round(settings.warm_up * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def _compile(model: MaskTokenizer) -> None:
    """Compiles the three parts in place; numbers of masks differ from step to step, images do not."""
    network = model.network
    network.image_encoder.compile()
    network.mask_embeddings = torch.compile(network.mask_embeddings, dynamic=True)  # type: ignore[method-assign]
    network.mask_logits = torch.compile(network.mask_logits, dynamic=True)  # type: ignore[method-assign]
