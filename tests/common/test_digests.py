import torch

from tintype.common.digests import weights_digest


def test_order_precision_and_layout_in_memory_do_not_matter() -> None:
    a, b = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).bfloat16(), torch.ones(4)
    assert weights_digest({"a": a, "b": b}) == weights_digest({"b": b, "a": a.float().t().contiguous().t()})


def test_names_shapes_and_values_do() -> None:
    tensor = torch.arange(6.0)
    others = [{"y": tensor}, {"x": tensor.view(2, 3)}, {"x": tensor + 1}, {"x": tensor, "y": tensor}]
    digests = {weights_digest(one) for one in [{"x": tensor}, *others]}
    assert len(digests) == 5
