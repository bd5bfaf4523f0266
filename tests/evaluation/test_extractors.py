"""Extractors give what their networks see."""

import torch
import torch.nn.functional as F

from tintype.evaluation.extractors import JudgeFeatures
from tintype.evaluation.pixels import from_bytes


def test_the_judge_gives_what_its_head_reads() -> None:
    judge = JudgeFeatures()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = judge(image)
    heads: list[torch.Tensor] = []
    judge.classifier.head.register_forward_hook(lambda module, given, out: heads.append(given[0]))
    logits = judge.classifier(from_bytes(image))
    assert seen.logits is not None
    torch.testing.assert_close(seen.logits, logits)
    torch.testing.assert_close(seen.pooled, heads[0].reshape(2, judge.dim, -1).mean(dim=2))
    assert judge.name.startswith("judge-")
    large = F.interpolate(image.float(), scale_factor=2, mode="nearest").byte()
    assert judge(large).pooled.shape == (2, judge.dim)
