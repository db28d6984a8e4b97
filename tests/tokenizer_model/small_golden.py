"""Numbers of the embedded tokenizer on a drawn image: ``small_golden.json`` and the command that rewrites it.

    .venv/bin/python tests/tokenizer_model/small_golden.py

Rewriting it is right only where the tokenizer ``small`` was meant to change: shards made with it change too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures import bar, disc, drawn_image

from tokenizer_model import MaskTokenizer, open_tokenizer

FILE = Path(__file__).with_name("small_golden.json")
GRID = 16  # every 16th logit of each axis


def measured(tokenizer: MaskTokenizer) -> dict[str, Any]:
    """sha256 of the weights; codes; the first 16 numbers of each z; a grid of the logits of these codes."""
    width, height = 200, 150
    image = drawn_image(width, height)
    regions = [
        disc(width, height, 0.3, 0.4, 40),
        disc(width, height, 0.8, 0.2, 2),
        bar(width, height, 0, 0, width, height),
        bar(width, height, 20, 130, 190, 134),
        bar(width, height, 150, 60, 200, 150),
        disc(width, height, 0.1, 0.9, 30),
    ]
    (z_ND,), (codes_NL,) = tokenizer.embed([image], [regions])
    (logits_NPP,) = tokenizer.decode_logits([image], [codes_NL])
    return {
        "sha256": tokenizer.identity.sha256,
        "codes": codes_NL.tolist(),
        "z": np.round(z_ND[:, :16].astype(np.float64), 5).tolist(),
        "logits": np.round(logits_NPP[:, ::GRID, ::GRID].astype(np.float64), 4).tolist(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    FILE.write_text(json.dumps(measured(open_tokenizer("small"))) + "\n", encoding="utf-8")
