"""The published forward pass: golden numbers of the official code for weights that a rule makes.

SAMTOK_PARITY names the folder with ``official_state_dict.json``, ``golden.npz`` and ``image.png``; its README gives
the rule. SAMTOK_PARITY_DEVICE may name another device than the CPU. The weights go through a file, so that loading
the published layout is tested on all of its keys.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samtok_data import masks
from tokenizer_model import SAMTOK_256X2, open_tokenizer

FOLDER = os.environ.get("SAMTOK_PARITY")
DEVICE = os.environ.get("SAMTOK_PARITY_DEVICE", "cpu")

pytestmark = pytest.mark.skipif(FOLDER is None, reason="SAMTOK_PARITY names no folder with the golden numbers")


@dataclass(frozen=True)
class Pass:
    """What one run gave, and the golden numbers."""

    embedding: torch.Tensor
    z: np.ndarray
    codes: np.ndarray
    logits: np.ndarray
    boxes: np.ndarray
    golden: dict[str, np.ndarray]


def rule(name: str, shape: list[int]) -> np.ndarray:
    x = np.random.Generator(np.random.Philox(zlib.crc32(name.encode()))).standard_normal(shape, dtype=np.float32)
    if len(shape) >= 2:
        return x / np.float32(math.sqrt(math.prod(shape[1:])))
    return 1 + np.float32(0.1) * x if name.endswith("weight") else np.float32(0.02) * x


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Pass:
    folder = Path(FOLDER or "")
    with np.load(folder / "golden.npz") as file:
        golden = {key: file[key] for key in file.files}
    shapes = json.loads((folder / "official_state_dict.json").read_text())
    assert len(shapes) == 992
    state = {name: torch.from_numpy(rule(name, shape)) for name, shape in shapes.items()}
    for level in range(2):
        state[f"quantizer.codebooks.{level}.weight"] = torch.from_numpy(golden[f"codebook{level}"])
    path = tmp_path_factory.mktemp("parity") / "mask_tokenizer_256x2.pth"
    torch.save(state, path)
    del state
    tokenizer = open_tokenizer(str(path), device=DEVICE)
    path.unlink()  # 900 MB
    assert (tokenizer.config, tokenizer.identity.name) == (SAMTOK_256X2, "mask_tokenizer_256x2")

    seen = []
    tokenizer.model.sam2_model.image_encoder.register_forward_hook(
        lambda _module, _arguments, output: seen.append(output["backbone_fpn"][-1])
    )
    height, width = golden["mask_shape"][1:]
    masks_NHW = np.unpackbits(golden["masks"], axis=-1)[:, :height, :width].astype(bool)
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    with Image.open(folder / "image.png") as image:
        prepared = tokenizer.prepare(image, [masks.encode(mask_HW) for mask_HW in masks_NHW])
        (z,), (codes,) = tokenizer.embed_prepared([prepared])
        (logits,) = tokenizer.decode_logits([image], [golden["codes"]])
    torch.set_num_threads(before)
    return Pass(seen[0][0].flatten(1).T.cpu(), z, codes, logits, prepared.pieces.boxes, golden)


def test_the_prompt_boxes_are_the_published_ones(run: Pass) -> None:
    np.testing.assert_array_equal(run.boxes, run.golden["boxes"])


def test_the_image_embedding_is_the_published_one(run: Pass) -> None:
    np.testing.assert_allclose(run.embedding[::64].numpy(), run.golden["image_embedding"], rtol=2e-3, atol=2e-3)


def test_the_mask_embeddings_are_the_published_ones(run: Pass) -> None:
    z = run.golden["z"]
    assert np.linalg.norm(run.z - z) < 1e-3 * np.linalg.norm(z)


def test_all_sixteen_codes_are_the_published_ones(run: Pass) -> None:
    np.testing.assert_array_equal(run.codes, run.golden["codes"])


def test_the_logits_are_the_published_ones(run: Pass) -> None:
    logits = run.golden["low_res_logits"].astype(np.float32)
    near = np.abs(logits) < 5
    assert near.mean() > 0.5
    assert np.abs(run.logits - logits)[near].max() < 0.05
