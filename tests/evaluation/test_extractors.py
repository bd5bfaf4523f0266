"""Extractors give what their networks see."""

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tintype.evaluation.extractors import INCEPTION_FILE, InceptionFeatures, JudgeFeatures
from tintype.evaluation.pixels import from_bytes
from tintype.models.inception import Inception


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


def test_inception_is_read_from_files_of_the_user(tmp_path: Path) -> None:
    network = Inception()
    state = network.state_dict()
    counted = state | {"Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(7)}
    torch.save(counted, tmp_path / INCEPTION_FILE, _use_new_zipfile_serialization=False)  # as the published one is
    save_file(
        {name: value.contiguous() for name, value in state.items() if value.ndim}, tmp_path / "inception.safetensors"
    )
    for name in (INCEPTION_FILE, "inception.safetensors"):
        extractor = InceptionFeatures(tmp_path / name)
        read = extractor.network.state_dict()
        assert all(torch.equal(read[key], value) for key, value in state.items())
        assert (
            extractor.name == f"inception-2015-12-05-{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()[:10]}"
        )
    seen = extractor(torch.full((1, 3, 30, 40), 90, dtype=torch.uint8))
    assert seen.logits is not None
    assert (seen.pooled.shape[1], seen.logits.shape[1]) == (extractor.dim, extractor.classes)
    save_file({"fc.weight": state["fc.weight"]}, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=r"less\.safetensors: 471 tensors are missing"):
        InceptionFeatures(tmp_path / "less.safetensors")


def test_weights_that_are_not_there_are_told_where_to_get() -> None:
    with pytest.raises(ValueError, match=r"absent\.pth: no such file; expected .*6726825d\.pth from https://github"):
        InceptionFeatures(Path("absent.pth"))
