"""Opening a tokenizer by its name or address, and saving one."""

from __future__ import annotations

import io
import os
import posixpath
from pathlib import Path
from typing import Any

import torch

from samtok_data.errors import SetupError
from samtok_data.storage import TEMPORARY, Folder
from tokenizer_model.addresses import EMBEDDED, PUBLISHED, local_file, located, sha256_aside
from tokenizer_model.checkpoints import (
    NETWORK_PREFIX,
    Checkpoint,
    check_fit,
    fit,
    read_checkpoint,
    read_sam2,
    read_sam2_video,
    to_bytes,
)
from tokenizer_model.config import Precision
from tokenizer_model.identity import TokenizerIdentity, untrained_warning
from tokenizer_model.passes import TOO_LITTLE_MEMORY
from tokenizer_model.tokenizer import FAST_IMAGE_BATCH, FAST_MASK_BATCH, IMAGE_BATCH, MASK_BATCH, MaskTokenizer

NAMES = (PUBLISHED, EMBEDDED)

# What SAM 2.1's own checkpoint fills.
_SAM2_PARTS = ("image_encoder.", "no_mem_embed", "sam_prompt_encoder.", "sam_mask_decoder.")


def identify_tokenizer(spec: str) -> TokenizerIdentity:
    """Which tokenizer a name or address means. The weights are fetched, read and held against the architecture.

    Args:
        spec: ``samtok-256x2`` (the published weights), ``small`` (embedded), or the address of a ``.pth``
            or ``.safetensors`` file: a local path, ``hf://owner/repository/path``, or what fsspec reads.

    Raises:
        SetupError: the weights cannot be fetched or read, are no tokenizer's, or do not fit.
    """
    return _unfilled(spec)[0].identity


def open_tokenizer(
    spec: str,
    *,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    image_batch: int | None = None,
    mask_batch: int | None = None,
) -> MaskTokenizer:
    """A tokenizer that is ready to use, in evaluation mode.

    Args:
        spec: as ``identify_tokenizer``.
        device: where it runs.
        precision: ``fp32``; ``fp16`` or ``bf16`` on a GPU.
        image_batch: most images of one backbone pass; None: 4, and 8 in 16 bits.
        mask_batch: most masks of one pass of encoder or decoder; None: 32, and 256 in 16 bits.

    Raises:
        SetupError: as ``identify_tokenizer``; a device that is not there, or whose memory is too small; 16 bits
            elsewhere than on a GPU.
        ValueError: a batch size below 1 or an unknown precision.
    """
    place = _device(device)
    if precision != "fp32" and place.type != "cuda":
        raise SetupError(f"precision {precision} needs a CUDA device, got {place}: take fp32")
    model, checkpoint = _unfilled(
        spec,
        image_batch=image_batch or (IMAGE_BATCH if precision == "fp32" else FAST_IMAGE_BATCH),
        mask_batch=mask_batch or (MASK_BATCH if precision == "fp32" else FAST_MASK_BATCH),
        precision=precision,
    )
    model.load_state_dict(dict(checkpoint.state), strict=False)
    try:
        model.eval().requires_grad_(False).to(place)
        model.use_fast_path()
    except torch.OutOfMemoryError as error:
        raise SetupError(TOO_LITTLE_MEMORY) from error
    return model


def save_tokenizer(
    model: MaskTokenizer, path: str | os.PathLike[str], *, name: str, trained: bool, half: bool = False
) -> None:
    """Writes a tokenizer as one safetensors file, whole or not at all; ``open_tokenizer`` reads it.

    Args:
        model: weights and configuration.
        path: local path or address of the file, ending in ``.safetensors``.
        name: as the identity of the saved tokenizer shows it.
        trained: whether its words mean anything.
        half: as 16-bit floating point numbers, which is half the size; its words are those of the rounded weights.

    Raises:
        ValueError: the path has another ending.
        OSError: the file could not be written; none is left.
    """
    state = model.state_dict()
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    _write(path, ".safetensors", to_bytes(state, config=model.config, name=name, trained=trained))


def save_published(model: MaskTokenizer, path: str | os.PathLike[str], *, sam2_weights: str | None = None) -> None:
    """Writes a tokenizer in the layout of ``mask_tokenizer_256x2.pth``, whole or not at all.

    The layout says nothing of the architecture: ``open_tokenizer`` and the published code read it back if it is that
    of ``samtok-256x2``.

    Args:
        model: its weights.
        path: local path or address of the file, ending in ``.pth``.
        sam2_weights: SAM 2.1's own checkpoint. Its parts for videos, which the model lacks and the published file
            holds, are written as they are; None: they are left out, and only programs like this one read the file.

    Raises:
        ValueError: the path has another ending.
        SetupError: ``sam2_weights`` cannot be read.
        OSError: the file could not be written; none is left.
    """
    video = read_sam2_video(local_file(sam2_weights)) if sam2_weights is not None else {}
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({**state, **{NETWORK_PREFIX + key: value for key, value in video.items()}}, buffer)
    _write(path, ".pth", buffer.getvalue())


def _write(path: str | os.PathLike[str], ending: str, data: bytes) -> None:
    folder, file = posixpath.split(os.fspath(path))
    if not file.endswith(ending):
        raise ValueError(f"expected a path that ends in {ending}, got {os.fspath(path)}")
    target = Folder(folder or ".")
    target.write(file, data)
    target.remove(TEMPORARY)


def load_sam2_weights(model: MaskTokenizer, path: str | os.PathLike[str]) -> None:
    """Fills image encoder, prompt encoder and mask decoder from SAM 2.1's own checkpoint; where training starts.

    Mask encoder and quantiser stay as they are.

    Args:
        model: with the backbone that the checkpoint is of.
        path: local file, e.g. ``sam2.1_hiera_large.pt``.

    Raises:
        SetupError: the file cannot be read or does not fit the model; nothing is changed then.
    """
    file = local_file(os.fspath(path))
    keys = [key for key in model.network.state_dict() if key.startswith(_SAM2_PARTS)]
    fit(model.network, read_sam2(file), keys, os.fspath(path))


def _unfilled(spec: str, **settings: Any) -> tuple[MaskTokenizer, Checkpoint]:
    """A tokenizer of the architecture of a file, and the weights that are to fill it and fit.

    Args:
        spec: as ``identify_tokenizer``.
        settings: of the tokenizer.
    """
    file, address = located(spec)
    # Hashing a large file takes as long as all the rest.
    with sha256_aside(file) as digest:
        checkpoint = read_checkpoint(file, spec)
        with torch.random.fork_rng(devices=[]):  # torch draws initial weights; the caller's generator stays as it was
            model = MaskTokenizer(checkpoint.config, **settings)
        check_fit(model, checkpoint.state, model.state_dict(), spec)
        name = checkpoint.name or (PUBLISHED if spec == PUBLISHED else Path(file).stem)
        model.identity = TokenizerIdentity(
            name=EMBEDDED if spec == EMBEDDED else name,
            address=address,
            sha256=digest(),
            config=checkpoint.config,
            trained=checkpoint.trained,
            warning=None if checkpoint.trained else untrained_warning(name),
        )
    return model, checkpoint


def _device(device: str | torch.device) -> torch.device:
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise SetupError(f"device: expected cpu, cuda or cuda:N, got {device!r}") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise SetupError(f"device {place}: this machine has {torch.cuda.device_count()} CUDA devices")
    return place
