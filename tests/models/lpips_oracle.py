"""The package lpips, which imports torchvision for the networks it can make; a stand-in has VGG16's layers alone."""

import sys
from types import ModuleType

import torch
from torch import nn

from tintype.models.lpips import LEVELS


def vgg16(pretrained: bool = False) -> nn.Module:
    """As torchvision builds it, up to the last pooling."""
    layers: list[nn.Module] = []
    before = 3
    for channels, count in LEVELS:
        for _ in range(count):
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU(inplace=True)]
            before = channels
        layers.append(nn.MaxPool2d(2, 2))
    network = nn.Module()
    network.features = nn.Sequential(*layers)
    return network


def their_lpips() -> nn.Module:
    """Random convolutions of a size that keeps the variance, and the package's own weights of the channels."""
    vision, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    models.vgg16 = vgg16
    vision.models = models
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torchvision"}
    assert not before  # were it installed, it should be used
    sys.modules |= {"torchvision": vision, "torchvision.models": models}
    try:
        import lpips
    finally:
        del sys.modules["torchvision"], sys.modules["torchvision.models"]
    network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    drawn = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5, generator=drawn)
            nn.init.normal_(module.bias, std=0.1, generator=drawn)
    return network.eval()
