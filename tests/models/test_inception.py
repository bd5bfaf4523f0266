"""Our Inception network is torch-fidelity's, on equal random weights."""

import fidelity_oracle
import pytest
import torch
from torch import Tensor, nn

from tintype.models.inception import FrozenNorm, Inception, resized


def random_inception() -> Inception:
    network = Inception()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.mul_(6**0.5)  # PyTorch draws them with 1/6 of the variance that ReLU needs
        if isinstance(module, FrozenNorm):
            for values, low, high in (
                (module.weight, 0.7, 1.3),
                (module.bias, -0.2, 0.2),
                (module.get_buffer("running_mean"), -0.2, 0.2),
                (module.get_buffer("running_var"), 0.7, 1.3),
            ):
                nn.init.uniform_(values, low, high)
    return network


def theirs(network: Inception, monkeypatch: pytest.MonkeyPatch) -> fidelity_oracle.FeatureExtractorInceptionV3:
    weights = "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"
    monkeypatch.setattr(weights, lambda *_, **__: dict(network.state_dict()))
    return fidelity_oracle.FeatureExtractorInceptionV3("theirs", ["2048", "logits_unbiased"])


def picture(height: int, width: int, *, count: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


@torch.inference_mode()
def test_features_and_logits_are_torch_fidelity_s(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = random_inception()
    image = picture(40, 56, count=2)
    features, logits = ours(image)
    expected, expected_logits = theirs(ours, monkeypatch)(image)
    assert float(features.std()) > 0.01  # the pictures come through
    assert not torch.allclose(features[0], features[1], rtol=1e-3)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-5 * float(expected_logits.abs().max()))


@pytest.mark.parametrize("size", [(32, 48), (299, 299), (640, 333), (1, 1)])
def test_pictures_are_resized_as_tensorflow_did(size: tuple[int, int]) -> None:
    image = picture(*size).float()
    expected = fidelity_oracle.interpolate_bilinear_2d_like_tensorflow1x(image, size=(299, 299), align_corners=False)
    torch.testing.assert_close(resized(image, 299), expected, rtol=0, atol=2e-4)  # of 255: the order of two roundings
    if size == (299, 299):
        assert torch.equal(resized(image, 299), image)
