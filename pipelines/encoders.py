"""The network in a process of its own, and what units in other processes see of it.

    feeder: files --> Prepared --Ray's object store--> encoder: the network, on its share of a GPU
            rows  <-- codes, IoUs <--------------------

A feeder's process is one of several on the encoder's node; none of them imports torch.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import ray
from numpy.typing import NDArray
from PIL import Image
from ray.exceptions import RayActorError, RayTaskError

from pipelines.work import software
from samtok_data.errors import SetupError
from samtok_data.masks import RLE
from samtok_data.words import MaskVocabulary

if TYPE_CHECKING:
    from tokenizer_model import MaskTokenizer, Prepared, TokenizerConfig
    from tokenizer_model.config import Precision

# How often a unit, or a call of an encoder, is tried again when its actor dies. Restarts of actors are not counted: on
# nodes that come and go, an actor may well die often without a fault of its own.
MAX_RETRIES = 3
# Calls that an encoder works on at the same time: the inputs of one are staged while another computes.
CALLS_AT_ONCE = 3

_Codes = Sequence[NDArray[np.int64]]
_IoUs = Sequence[NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerOrder:
    """What an actor computes with; one that finds something else refuses to work.

    Attributes:
        spec: as ``--tokenizer`` takes it.
        sha256: of its weights as the driver read them.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        device: ``cuda`` or ``cpu``.
        software: versions on the driver, as they stand in the run's fingerprint.
    """

    spec: str
    sha256: str
    precision: Precision
    device: Literal["cuda", "cpu"]
    software: Mapping[str, str]

    def check_software(self) -> None:
        """Holds this node's versions against the driver's.

        Raises:
            SetupError: they differ.
        """
        here = software()
        if here != self.software:
            differences = ", ".join(
                f"{name} {here[name]} instead of {version}"
                for name, version in self.software.items()
                if here[name] != version
            )
            raise SetupError(f"a node has other software than the driver: {differences}; install the same everywhere")

    def open(self) -> MaskTokenizer:
        """The tokenizer, in this process.

        Raises:
            SetupError: it cannot be opened, or this node has other software or other weights than the driver.
        """
        import torch

        from tokenizer_model import open_tokenizer

        self.check_software()
        if self.device == "cpu":
            # One thread, whatever the machine: sums that are split over threads round differently, and the words must
            # not depend on the number of cores or actors.
            torch.set_num_threads(1)
        tokenizer = open_tokenizer(self.spec, device=self.device, precision=self.precision)
        found = tokenizer.identity.sha256
        if found != self.sha256:
            raise SetupError(
                f"--tokenizer {self.spec}: a node holds other weights (sha256 {found[:12]}) than the driver "
                f"({self.sha256[:12]}); give every node the same file, or an address that all of them reach"
            )
        return tokenizer


@dataclass(slots=True)
class _Usage:
    """What an encoder did since it was started.

    Attributes:
        calls: that ended well.
        images: in them.
        masks: in them.
        busy_s: seconds in which it worked on at least one call.
        idle_s: seconds between its calls, in which it waited for the next.
    """

    calls: int = 0
    images: int = 0
    masks: int = 0
    busy_s: float = 0.0
    idle_s: float = 0.0


class EncoderActor:
    """Holds a tokenizer and computes for units in other processes. Ray calls it from several threads at once."""

    def __init__(self, order: TokenizerOrder) -> None:
        self.order = order
        self._tokenizer: MaskTokenizer | None = None
        self._opening, self._counting = threading.Lock(), threading.Lock()
        self._usage = _Usage()
        self._active, self._since = 0, 0.0

    def ready(self) -> tuple[TokenizerConfig, bool]:
        """Opens the tokenizer; its architecture, and whether it resizes images itself.

        Not done by the constructor: Ray hands an error of a method to the caller whole, one of a constructor as text.
        """
        tokenizer = self._open()
        return tokenizer.config, tokenizer.resizes

    def encode(self, prepared: Sequence[Prepared]) -> _Codes:
        """As ``Tokenizer.encode_prepared``. The arrays lie in Ray's object store and cannot be written to."""
        with self._working() as tokenizer:
            codes = tokenizer.encode_prepared(prepared)
        self._count(codes)
        return codes

    def measure(self, prepared: Sequence[Prepared]) -> tuple[_Codes, _IoUs]:
        """As ``Tokenizer.measure_prepared``."""
        with self._working() as tokenizer:
            codes, ious = tokenizer.measure_prepared(prepared)
        self._count(codes)
        return codes, ious

    def usage(self) -> dict[str, float]:
        """Calls, images and masks since it was started, and the seconds that it computed and waited."""
        with self._counting:
            return asdict(self._usage)

    def _open(self) -> MaskTokenizer:
        with self._opening:
            if self._tokenizer is None:
                self._tokenizer = self.order.open()
            return self._tokenizer

    @contextlib.contextmanager
    def _working(self) -> Iterator[MaskTokenizer]:
        tokenizer = self._open()
        if self.order.device == "cpu":
            import torch

            torch.set_num_threads(1)  # each of this process's threads has a number of its own
        with self._counting:
            if self._active == 0:
                now = time.monotonic()
                self._usage.idle_s += now - (self._since or now)
                self._since = now
            self._active += 1
        try:
            yield tokenizer
        finally:
            with self._counting:
                self._active -= 1
                if self._active == 0:
                    now = time.monotonic()
                    self._usage.busy_s += now - self._since
                    self._since = now

    def _count(self, codes: _Codes) -> None:
        with self._counting:
            self._usage.calls += 1
            self._usage.images += len(codes)
            self._usage.masks += sum(len(of_image) for of_image in codes)


class RemoteTokenizer:
    """An encoder as a unit sees it: the ``Tokenizer`` of ``pipelines/work.py``.

    The arguments of a call are copied once, into the object store of the node, and read there without a copy; they
    are freed when the call ends, as nothing else refers to them.

    Args:
        encoder: handle of an ``EncoderActor`` on this node.

    Raises:
        SetupError: the encoder cannot open its tokenizer, or kept dying; so do the methods.
    """

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._config: TokenizerConfig
        self._config, self._resizes = _answer(encoder.ready.remote())

    @property
    def vocabulary(self) -> MaskVocabulary:
        """The spelling of its words."""
        return self._config.vocabulary

    def prepare(self, image: Image.Image, regions: Sequence[RLE]) -> Prepared:
        """As ``MaskTokenizer.prepare``; in this process."""
        from tokenizer_model import Prepared

        return Prepared.of(image, regions, self._config, is_whole=self._resizes)

    def encode_prepared(self, prepared: Sequence[Prepared]) -> _Codes:
        """As ``MaskTokenizer.encode_prepared``."""
        return _answer(self._encoder.encode.remote(prepared))

    def measure_prepared(self, prepared: Sequence[Prepared]) -> tuple[_Codes, _IoUs]:
        """As ``MaskTokenizer.measure_prepared``."""
        return _answer(self._encoder.measure.remote(prepared))


def _answer(call: Any) -> Any:
    with setup_errors():
        return ray.get(call)


@contextlib.contextmanager
def setup_errors() -> Iterator[None]:
    """Gives the errors of actors their own form back.

    Raises:
        SetupError: one was raised in an actor, or an actor kept dying.
    """
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, SetupError):
            raise SetupError(*error.cause.args) from error
        raise
    except RayActorError as error:
        raise _death(error) from error


def _death(error: RayActorError) -> SetupError:
    """An actor that could not be made, or that died with one unit, or one call, too often."""
    text = str(error)
    if "creation task" in text:
        last = text.strip().splitlines()[-1].strip()
        return SetupError(
            f"An actor could not start: {last}. samtok-data must be installed on every node of the cluster"
        )
    detail = next((line.strip() for line in text.splitlines() if "exit" in line), text.splitlines()[0]).partition(
        ". Some "
    )[0]
    return SetupError(
        f"An actor died {MAX_RETRIES + 1} times at the same work; too little memory is the usual cause. Finished "
        f"shards are kept: mend the cause and run again to resume. Ray says: {detail[:300]}"
    )
