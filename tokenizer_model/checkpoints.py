"""Files of weights: the published layout, our own, and SAM 2.1's. Reading never runs code that a file holds.

.pth, .pt      PyTorch's zip archive of a state dict. SAMTok's own file holds the tokenizer's keys and no
               configuration; SAM 2.1's holds ``{"model": state dict}``.
.safetensors   the tokenizer's keys, and in the metadata under ``samtok_config`` a JSON object with the
               fields ``name``, ``trained`` and ``config``.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from samtok_data.errors import SetupError
from tokenizer_model.config import SAMTOK_256X2, TokenizerConfig

METADATA_KEY = "samtok_config"
NETWORK_PREFIX = "model.sam2_model."

# Parts of SAM 2 that follow objects through a video. Files hold them; a still image never reaches them.
VIDEO_KEYS = {
    "maskmem_tpos_enc": "position of a frame in the memory",
    "memory_attention.": "reads the memory of earlier frames",
    "memory_encoder.": "writes the memory",
    "no_mem_pos_enc": "position of the missing memory in memory attention",
    "no_obj_ptr": "pointer of an object that left",
    "no_obj_embed_spatial": "memory of an object that left",
    "mask_downsample.": "makes a pointer from a given mask",
    "obj_ptr_proj.": "makes an object's pointer",
    "obj_ptr_tpos_proj.": "position of a frame in the pointers",
}

_NAMED_KEYS = 8  # how many keys an error message spells out


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a tokenizer file holds.

    Attributes:
        state: the tensors by the keys of ``MaskTokenizer.state_dict``, those of the video parts removed.
        config: the architecture.
        name: as the file says; None where it does not.
        trained: whether the weights were ever trained.
    """

    state: Mapping[str, Tensor]
    config: TokenizerConfig
    name: str | None
    trained: bool


def read_checkpoint(path: Path, shown: str) -> Checkpoint:
    """Reads a tokenizer.

    Args:
        path: the file.
        shown: what error messages call it.

    Raises:
        SetupError: the file cannot be read, is no tokenizer, or has another number of codes or levels than its
            configuration says.
    """
    state, header = _read_safetensors(path, shown) if path.suffix == ".safetensors" else (_read_pth(path, shown), None)
    if isinstance(state.get("model"), Mapping):
        raise SetupError(
            f"{shown}: this is SAM 2.1's own checkpoint: it has no mask encoder and no quantizer, so it cannot "
            "tokenize. Give SAMTok's mask_tokenizer_256x2.pth or a tokenizer that was saved here"
        )
    tensors = _still_tensors(state, NETWORK_PREFIX, shown)
    config, name, trained = _read_header(header, shown)
    _check_codebooks(tensors, config, shown)
    return Checkpoint(tensors, config, name, trained)


def read_sam2(path: Path) -> dict[str, Tensor]:
    """Reads a checkpoint of SAM 2.1 as it is published, the video parts removed.

    Raises:
        SetupError: the file cannot be read, or has another layout.
    """
    return _still_tensors(_sam2_state(path), "", str(path))


def read_sam2_video(path: Path) -> dict[str, Tensor]:
    """Reads the parts that ``read_sam2`` removes. Errors as there."""
    return {key: value for key, value in _sam2_state(path).items() if str(key).startswith(tuple(VIDEO_KEYS))}


def _sam2_state(path: Path) -> Mapping[str, Any]:
    state = _read_pth(path, str(path)).get("model")
    if not isinstance(state, Mapping):
        raise SetupError(f"{path}: expected a checkpoint of SAM 2.1, a state dict under the key 'model'")
    return state


def fit(module: torch.nn.Module, state: Mapping[str, Tensor], keys: Iterable[str], shown: str) -> None:
    """Copies tensors into a module, all of them or none. Arguments and errors as ``check_fit``."""
    check_fit(module, state, keys, shown)
    module.load_state_dict(dict(state), strict=False)


def check_fit(module: torch.nn.Module, state: Mapping[str, Tensor], keys: Iterable[str], shown: str) -> None:
    """Whether tensors fit a module.

    Args:
        module: what they are to go into.
        state: the tensors.
        keys: the module's keys that they must be, no more and no fewer.
        shown: what error messages call the file.

    Raises:
        SetupError: keys are missing, unexpected or of another shape; the message names them.
    """
    own = module.state_dict()
    expected = set(keys)
    faults = [
        _listed("missing", sorted(expected - set(state))),
        _listed("unexpected", sorted(set(state) - expected)),
        _listed(
            "of another shape",
            [
                f"{key} (expected {tuple(own[key].shape)}, got {tuple(state[key].shape)})"
                for key in sorted(expected & set(state))
                if own[key].shape != state[key].shape
            ],
        ),
    ]
    if any(faults):
        raise SetupError(
            f"{shown}: the weights do not fit the tokenizer: {'; '.join(filter(None, faults))}. Give SAMTok's "
            "mask_tokenizer_256x2.pth or a tokenizer that was saved here"
        )
    broken = [key for key, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise SetupError(f"{shown}: {_listed('with numbers that are not finite', sorted(broken))}; it was damaged")


def to_bytes(state: Mapping[str, Tensor], *, config: TokenizerConfig, name: str, trained: bool) -> bytes:
    """A tokenizer as a safetensors file. The same weights give the same bytes."""
    header = json.dumps({"name": name, "trained": trained, "config": config.json}, sort_keys=True)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    return save(tensors, metadata={METADATA_KEY: header})  # one key: their order would not be kept


def _read_pth(path: Path, shown: str) -> Mapping[str, Any]:
    if not zipfile.is_zipfile(path):
        raise SetupError(f"{shown}: this is no PyTorch checkpoint, or it was cut short")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise SetupError(f"{shown}: refused, the file holds more than tensors and could run code") from error
    except (RuntimeError, EOFError, OSError) as error:
        raise SetupError(f"{shown}: this is no PyTorch checkpoint, or it was cut short") from error
    if not isinstance(content, Mapping):
        raise SetupError(f"{shown}: expected a state dict, got {type(content).__name__}")
    return content


def _read_safetensors(path: Path, shown: str) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(METADATA_KEY)
            return {key: file.get_tensor(key) for key in file.keys()}, header
    except (SafetensorError, OSError) as error:
        raise SetupError(f"{shown}: this is no safetensors file, or it was cut short") from error


def _still_tensors(state: Mapping[str, Any], prefix: str, shown: str) -> dict[str, Tensor]:
    video = tuple(prefix + key for key in VIDEO_KEYS)
    still = {key: value for key, value in state.items() if not str(key).startswith(video)}
    for key, value in still.items():
        if not isinstance(value, Tensor):
            raise SetupError(f"{shown}: expected a state dict, got {type(value).__name__} under the key {key!r}")
    return still


def _read_header(header: str | None, shown: str) -> tuple[TokenizerConfig, str | None, bool]:
    if header is None:  # the published layout, which says nothing of itself
        return SAMTOK_256X2, None, True
    try:
        read = json.loads(header)
        return TokenizerConfig.from_json(read["config"]), str(read["name"]), bool(read["trained"])
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{shown}: the metadata under {METADATA_KEY!r} is broken: {error}") from error


def _check_codebooks(state: Mapping[str, Tensor], config: TokenizerConfig, shown: str) -> None:
    weights = [key for key in state if key.startswith("quantizer.codebooks.") and key.endswith(".weight")]
    if weights and len(weights) != config.num_codebooks:
        raise SetupError(f"{shown}: expected {config.num_codebooks} codebooks, got {len(weights)}")
    for key in sorted(weights):
        size = state[key].shape[0] - 1
        if size != config.codebook_size:
            raise SetupError(
                f"{shown}: {key}: expected {config.codebook_size} codes ({config.codebook_size + 1} rows), "
                f"got {size} codes ({size + 1} rows). Give SAMTok's mask_tokenizer_256x2.pth, "
                "or a tokenizer whose file says its own configuration"
            )


def _listed(fault: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = "" if len(keys) <= _NAMED_KEYS else f" and {len(keys) - _NAMED_KEYS} more"
    return f"{len(keys)} {'key' if len(keys) == 1 else 'keys'} {fault}: {', '.join(keys[:_NAMED_KEYS])}{more}"
