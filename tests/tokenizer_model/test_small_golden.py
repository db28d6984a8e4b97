"""The embedded tokenizer gives the numbers that it gave when they were written down."""

from __future__ import annotations

import json

import numpy as np
from small_golden import FILE, measured

from tokenizer_model import MaskTokenizer


def test_the_embedded_tokenizer_gives_its_golden_numbers(small: MaskTokenizer) -> None:
    golden = json.loads(FILE.read_text(encoding="utf-8"))
    found = measured(small)
    assert found["sha256"] == golden["sha256"]
    assert found["codes"] == golden["codes"]
    assert len({tuple(codes) for codes in golden["codes"]}) == 6  # unlike masks get unlike words
    for name in ("z", "logits"):
        np.testing.assert_allclose(found[name], golden[name], rtol=1e-3, atol=1e-3)
