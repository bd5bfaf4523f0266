import pytest
import torch
from torch import nn

from tintype.training.ema import EMA, warmed


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float32))
        self.register_buffer("running", torch.zeros(1))
        self.register_buffer("number", torch.tensor(7))


def test_the_average_by_hand() -> None:
    module = Counted()
    ema = EMA(module, decay=warmed(0.3))
    expected = 1.0
    for updates, value in enumerate([4.0, -1.0, 2.0, 10.0, 0.5]):
        with torch.no_grad():
            module.weight.copy_(torch.tensor([value, 2 * value]))
            module.get_buffer("running").fill_(value)
        ema.update(module, updates)
        decay = min(0.3, (1 + updates) / (10 + updates))  # 0.1, 0.1818, 0.25, 0.3, 0.3
        expected = decay * expected + (1 - decay) * value
        assert float(ema.average["weight"][0]) == pytest.approx(expected, rel=1e-5)
    assert ema.average.keys() == {"weight", "running", "number"}
    assert ema.average["number"] == 7
    assert ema.average["running"] != 0
    assert module.weight[0].item() == 0.5


def test_a_constant_is_its_own_average() -> None:
    module = Counted()
    ema = EMA(module, decay=warmed(0.999))
    for updates in range(20):
        ema.update(module, updates)
    assert torch.equal(ema.average["weight"], module.weight)


def test_the_average_shares_no_memory_and_needs_no_gradient() -> None:
    module = Counted()
    ema = EMA(module, decay=warmed(0.9))
    with torch.no_grad():
        module.weight.zero_()
    assert ema.average["weight"].tolist() == [1.0, -2.0]
    assert not any(value.requires_grad for value in ema.average.values())


def test_loading_is_strict() -> None:
    ema = EMA(Counted(), decay=warmed(0.9))
    other = {name: value + 1 for name, value in ema.state_dict().items()}
    ema.load_state_dict(other)
    assert ema.average["weight"].tolist() == [2.0, -1.0]
    with pytest.raises(ValueError, match=r"EMA names differ from the module's: \['bias', 'weight'\]"):
        ema.load_state_dict({"bias": torch.zeros(2), "running": torch.zeros(1), "number": torch.tensor(1)})
