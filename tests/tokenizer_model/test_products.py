"""Products of a backbone's size on a GPU; of small sizes, through the interpreter, in ``test_fast_path.py``."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="triton is not installed")

import torch
import torch.nn.functional as F

from tokenizer_model.fast.products import linear

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize(("kind", "close"), [(torch.float16, 6e-4), (torch.bfloat16, 5e-3), (torch.float32, 2e-6)])
@pytest.mark.parametrize(
    ("rows", "inner", "outer"), [(4096, 144, 432), (4096, 288, 1152), (1000, 576, 2304), (65, 1152, 4608), (1, 24, 72)]
)
def test_products_are_those_of_float64(rows: int, inner: int, outer: int, kind: torch.dtype, close: float) -> None:
    torch.manual_seed(rows)
    x_TK, weight_NK = (torch.randn(*shape, device="cuda").to(kind) for shape in ((rows, inner), (outer, inner)))
    bias_N = torch.randn(outer, device="cuda").to(kind)
    wanted_TN = F.linear(x_TK.double(), weight_NK.double(), bias_N.double())
    for is_gelu, wanted in ((False, wanted_TN), (True, F.gelu(wanted_TN))):
        found = linear(x_TK, weight_NK, bias_N, is_gelu=is_gelu)
        assert (found - wanted).abs().max() <= close * wanted.abs().max()
    if rows > 128:
        # A row does not know how many there are beside it.
        assert torch.equal(linear(x_TK[:128], weight_NK, bias_N), linear(x_TK, weight_NK, bias_N)[:128])
