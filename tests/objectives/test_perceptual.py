import torch
import torch.nn.functional as F

from tintype.common.rng import generator
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.objectives.perceptual import FeatureDistance

CONFIG = ClassifierConfig(num_classes=4, image_size=32, widths=(8, 16, 16), norm_groups=4)


def distance() -> FeatureDistance:
    torch.manual_seed(0)
    return FeatureDistance(Classifier(CONFIG))


def pictures(key: int, count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=generator(key)) * 2 - 1


def test_equal_pictures_are_at_no_distance() -> None:
    a = pictures(1)
    assert (distance()(a, a.clone()) == 0).all()


def test_the_distance_is_symmetric_positive_and_one_number_a_picture() -> None:
    measure, a, b = distance(), pictures(1), pictures(2)
    forth, back = measure(a, b), measure(b, a)
    assert forth.shape == (3,)
    assert torch.allclose(forth, back)
    assert (forth > 0.01).all()
    assert torch.allclose(measure(a[1:2], b[1:2])[0], forth[1], rtol=1e-4)
    nearer = measure(a, torch.lerp(a, b, 0.1))
    assert (nearer < forth / 4).all()


def test_the_distance_is_one_minus_the_cosine_twice() -> None:
    """|u - v|^2 = 2 - 2 cos for unit vectors: another road to the same number."""
    measure, a, b = distance(), pictures(1), pictures(2)
    levels = zip(measure.network.features(a), measure.network.features(b), strict=True)
    expected = sum((2 - 2 * F.cosine_similarity(x, y, dim=1)).mean(dim=(1, 2)) for x, y in levels)
    assert len(measure.network.features(a)) == 3
    assert torch.allclose(measure(a, b), expected, atol=1e-5)


def test_the_gradient_reaches_the_pictures_and_not_the_network() -> None:
    measure = distance()
    a, b = pictures(1).requires_grad_(), pictures(2)
    measure(a, b).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert a.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    assert not measure.network.training
    assert all(value.grad is None and not value.requires_grad for value in measure.parameters())


def test_the_gradient_of_no_distance_is_none_and_finite() -> None:
    a = pictures(1).requires_grad_()
    distance()(a, a.detach().clone()).sum().backward()
    assert a.grad is not None
    assert (a.grad == 0).all()


def test_in_bfloat16_the_distance_itself_is_float32() -> None:
    measure, a = distance(), pictures(1)
    b = a + 0.02 * pictures(2)
    exact = measure(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        low = measure(a, b)
    assert low.dtype == torch.float32
    assert exact.dtype == torch.float32
