"""LPIPS (Zhang et al. 2018), version 0.1 with VGG16: how far apart people would find two pictures."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tintype.nn.layers import Layers, to_channels_last

LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # VGG16: channels and convolutions between poolings
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and std, of pictures in [-1, 1]


class LPIPS(nn.Module):
    """(a, b: B 3 H W in [-1, 1], sides of 16 or more) -> B. Frozen; the gradient reaches the pictures.

    Channel-normalised features of five levels (after ReLU, before pooling), squared differences weighed by channel,
    mean over places, summed over levels (equation 1). `tintype.checkpoints.lpips_files.load_lpips` reads weights.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        widths = [channels for channels, count in LEVELS for _ in range(count)]
        self.convs = Layers(nn.Conv2d(a, b, 3, padding=1) for a, b in zip((3, *widths), widths, strict=False))
        self.weights = nn.ParameterList(torch.zeros(channels) for channels, _ in LEVELS)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)
        to_channels_last(self)

    def features(self, image: Tensor) -> list[Tensor]:
        """The last activation of each level, finest first: B 64 H W, B 128 H/2 W/2, …"""
        if min(image.shape[-2:]) < 16:
            raise ValueError(f"a picture of {image.shape[-1]} x {image.shape[-2]}: LPIPS expects sides of 16 or more")
        x = ((image - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)
        convs = iter(self.convs)
        found: list[Tensor] = []
        for _, count in LEVELS:
            x = F.max_pool2d(x, 2) if found else x
            for _ in range(count):
                x = F.relu(next(convs)(x))
            found.append(x)
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(self.weights, self.features(a), self.features(b), strict=True)
        levels = [
            ((_normalised(x) - _normalised(y)).square().mean(dim=(2, 3)) * weight).sum(dim=1) for weight, x, y in pairs
        ]
        return torch.stack(levels).sum(dim=0)


def _normalised(x: Tensor) -> Tensor:
    """Length 1 over the channels, in float32; where all are 0 they stay so, with a finite gradient."""
    x = x.float()
    return x / (x.square().sum(dim=1, keepdim=True) + 1e-20).sqrt()


def lpips_names() -> Mapping[str, tuple[str, ...]]:
    """Our name of each parameter and what it is called elsewhere: by torchvision's VGG16 and in a whole LPIPS module;
    weights of channels in lpips's own files and where a module lists them twice or has no dropout."""
    names: dict[str, tuple[str, ...]] = {}
    place = number = 0  # of a layer among all, and of a convolution
    for level, (_, count) in enumerate(LEVELS):
        for _ in range(count):
            for kind in ("weight", "bias"):
                theirs = (f"features.{place}.{kind}", f"net.slice{level + 1}.{place}.{kind}")
                names[f"convs.{number}.{kind}"] = theirs
            place, number = place + 2, number + 1  # a ReLU follows
        place += 1  # a pooling
        linear = [f"lin{level}.model.{at}.weight" for at in (1, 0)]
        names[f"weights.{level}"] = (*linear, *(name.replace("lin", "lins.", 1) for name in linear))
    return names
