"""What each worker of a training run does: read its lanes, step, and (the first one) log, validate and save."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pipelines.mixes import open_sources
from pipelines.training.beginning import fresh_model
from pipelines.training.checkpoints import Checkpoints
from pipelines.training.figures import Figures
from pipelines.training.group import Group
from pipelines.training.lanes import LaneState
from pipelines.training.loader import Batch, LaneDataset, batches
from pipelines.training.residence import Residence
from pipelines.training.settings import TrainSettings
from pipelines.training.validation import Validation
from samtok_data import rejects
from samtok_data.errors import SetupError
from samtok_data.rejects import Reject
from samtok_data.storage import Folder
from tokenizer_model.training.optimiser import NotFinite, Optimiser, StepReport

REJECTS = "rejects.jsonl"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a run stands when the command ends.

    Attributes:
        step: steps that were made, of all starts.
        steps: of the whole run.
        r_iou: of the last validation; None: there was none.
        masks: trained on since this start.
        seconds: that this start took in its steps.
        rejects: parts of the sources that could not be used, by reason.
    """

    step: int
    steps: int
    r_iou: float | None
    masks: int
    seconds: float
    rejects: Mapping[str, int]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.step == self.steps

    @property
    def json(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)


class Worker:
    """One worker. All of them hold the same model.

    Args:
        settings: of the run.
        device: of this worker.

    Raises:
        SetupError: a source, the weights to begin with or the checkpoint to go on from cannot be used.
    """

    def __init__(self, settings: TrainSettings, device: torch.device) -> None:
        self.settings, self.recipe, self.device = settings, settings.recipe, device
        self.group, self.out = Group.current(), Folder(settings.out)
        self._sources = open_sources(settings.mix, self.out)
        self._validation: Validation | None = None
        if settings.validation is not None and self.group.is_first:
            chosen = [source for source, _ in open_sources(settings.validation, self.out)]
            self._validation = Validation.of(chosen, settings.validation_images, self.recipe.seed)
        self._checkpoints = Checkpoints(self.out, keep=settings.keep)
        self._lanes: dict[int, LaneState] = {}
        self._rejects: dict[str, Reject] = {}
        self._r_iou: float | None = None
        self._optimiser = self._resumed()
        self._start = time.monotonic()

    def run(self) -> Outcome:
        """Trains until the last step, or until the time that was given is over.

        Raises:
            SetupError: a source, the file system, the GPU's memory or the loss puts an end to it.
        """
        first = self._optimiser.step_number
        with Figures(self.settings, self.out, first, self.recipe.steps, is_first=self.group.is_first) as figures:
            masks = 0
            if first < self.recipe.steps:
                for batch in self._batches():
                    try:
                        report = self._step(batch)
                        masks += report.num_masks
                        self._after(report, figures)
                    except torch.cuda.OutOfMemoryError as error:
                        raise self._full_memory() from error
                    if self._optimiser.step_number == self.recipe.steps or self._must_stop():
                        break
                self._save(figures)
            counts = rejects.count(self._rejects.values())
            step = self._optimiser.step_number
            return Outcome(step, self.recipe.steps, self._r_iou, masks, figures.seconds, counts)

    def _resumed(self) -> Optimiser:
        settings = self.settings
        model = fresh_model(self.recipe, self.device)
        optimiser = Optimiser(model, self.recipe, images_per_pass=settings.images_per_pass, compiled=settings.compiled)
        found = self._checkpoints.all()
        # All workers go on from what the first one sees: it may have just been written.
        step = self.group.of_first(found[-1].step if found else None)
        if step is not None:
            state = self._checkpoints.load(step)
            optimiser.load(state)
            self._lanes = {int(number): LaneState.from_json(lane) for number, lane in state["lanes"].items()}
            self._r_iou = state["r_iou"]
            if self.group.is_first and self.out.exists(REJECTS):
                self._rejects = {one.key: one for one in rejects.from_lines(self.out.read(REJECTS))}
        return optimiser

    @property
    def _own_lanes(self) -> range:
        share = self.recipe.images_per_step // self.group.world
        return range(self.group.rank * share, (self.group.rank + 1) * share)

    def _batches(self) -> Iterator[Batch]:
        mine = self._own_lanes
        if self.settings.resident_gib:
            residence = Residence(
                self._sources,
                self.recipe,
                self.device,
                gib=self.settings.resident_gib,
                processes=self.settings.loaders,
            )
            return residence.batches(mine, self._lanes)
        dataset = LaneDataset(
            self._sources, self.recipe, lanes=mine, states=self._lanes, kept_images=self.settings.kept_images
        )
        return batches(dataset, lanes=len(mine), processes=self.settings.loaders, device=self.device)

    def _step(self, batch: Batch) -> StepReport:
        try:
            report = self._optimiser.step(batch.examples)
        except NotFinite as error:
            # A gradient may fail where each loss alone is sound: then any image may be the one.
            found = [batch.images[index] for index in error.images] or batch.images
            raise SetupError(
                f"step {error.step + 1}: the {error.what} is not a finite number; it may be {' or '.join(found)}. "
                "Nothing was changed by it; lower recipe.optimisation.learning_rate, or look at these images, and "
                "start again from the last checkpoint"
            ) from error
        self._lanes.update(batch.lanes)
        self._rejects.update((reject.key, reject) for reject in batch.rejects)
        return report

    def _full_memory(self) -> SetupError:
        memory = "the GPU's memory is"
        if self.device.type == "cuda":
            memory = f"the GPU's {torch.cuda.get_device_properties(self.device).total_memory / 2**30:.0f} GiB are"
        return SetupError(
            f"step {self._optimiser.step_number + 1}: {memory} full; lower images_per_pass (now "
            f"{self.settings.images_per_pass}; the run can go on with another) or recipe.masks_per_image (now "
            f"{self.recipe.masks_per_image}; that is another run)"
        )

    def _after(self, report: StepReport, figures: Figures) -> None:
        """Logs, validates and saves where it is time."""
        settings, step = self.settings, self._optimiser.step_number
        is_last = step == self.recipe.steps
        figures.count(report)
        if step % settings.log_every == 0 or is_last:
            figures.add(step, report)
        if self._validation is not None and (step % settings.validate_every == 0 or is_last):
            with figures.paused():
                title = f"step {step:,}" if step % settings.sheet_every == 0 or is_last else None
                measured, sheet = self._validation.measure(self._optimiser.model, sheet_title=title)
                self._r_iou = measured["r_iou"]
                figures.add_validation(step, measured, sheet)
        if step % settings.save_every == 0 and not is_last:
            self._save(figures)

    def _save(self, figures: Figures) -> None:
        """Writes a checkpoint; the log and the rejects first, so that a resumed run finds what belongs to it."""
        step = self._optimiser.step_number
        # Only what each worker read itself: of the others' lanes it knows where they stood when the run was resumed.
        own = {number: state for number, state in self._lanes.items() if number in self._own_lanes}
        lanes = {number: state.json for part in self.group.gather(own) for number, state in part.items()}
        for part in self.group.gather(self._rejects):
            self._rejects.update(part)
        if not self.group.is_first:
            return
        with figures.paused():
            figures.flush()
            if self._validation is None:
                figures.draw()
            if self._rejects:
                self.out.write(REJECTS, rejects.to_lines(self._rejects[key] for key in sorted(self._rejects)))
            state: dict[str, Any] = {
                **self._optimiser.state(),
                "lanes": {str(number): lanes[number] for number in sorted(lanes)},
                "r_iou": self._r_iou,
            }
            self._checkpoints.save(step, state, self._r_iou)

    def _must_stop(self) -> bool:
        limit = self.settings.max_minutes
        if limit is None or self._optimiser.step_number % self.settings.log_every:
            return False
        return bool(self.group.of_first(time.monotonic() - self._start > 60 * limit))
