import pytest
import torch
import torch.nn.functional as F

from tintype.common.rng import generator
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.objectives.classification import LARGEST_NOISE, ClassificationObjective

CONFIG = ClassifierConfig(num_classes=10, image_size=16, widths=(16, 16), norm_groups=4)


def eight_pictures() -> dict[str, torch.Tensor]:
    image = torch.rand(8, 3, 16, 16, generator=generator("pictures")) * 2 - 1
    return {"image": image, "label": torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])}


def test_eight_pictures_are_learned_by_heart() -> None:
    torch.manual_seed(0)
    model = Classifier(CONFIG)
    objective = ClassificationObjective(model)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses: list[float] = []
    metrics: dict[str, torch.Tensor] = {}
    for step in range(40):
        loss, metrics = objective.loss("classifier", eight_pictures(), generator("train", step), step=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(2.3026, abs=0.1)  # log 10: the head's weights start at zero
    assert losses[-1] < losses[0] / 100
    assert metrics["accuracy"] == 1
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert not torch.equal(value, start[name]), name


def test_the_loss_by_hand() -> None:
    torch.manual_seed(0)
    model, batch = Classifier(CONFIG).eval(), eight_pictures()
    torch.nn.init.normal_(model.head.weight)
    objective = ClassificationObjective(model)
    with torch.no_grad():
        loss, metrics = objective.loss("classifier", batch, generator("noise"), step=0)
        noise = generator("noise")
        strength = LARGEST_NOISE * torch.rand(8, 1, 1, 1, generator=noise)
        logits = model(batch["image"] + strength * torch.randn(8, 3, 16, 16, generator=noise))
    chosen = F.softmax(logits.double(), dim=1)[torch.arange(8), batch["label"]]
    assert float(loss) == pytest.approx(float(-chosen.log().mean()), rel=1e-5)
    assert float(metrics["accuracy"]) == sum(logits.argmax(1) == batch["label"]) / 8
    assert not metrics["accuracy"].requires_grad
