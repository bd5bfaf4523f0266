"""What the first stage does in training: to latents and back, with all that is learned beside its networks."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tintype.models.autoencoder import Autoencoder, Codes, Posterior
from tintype.objectives.codebook import CodebookConfig, CodebookLearning


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """decoded: B 3 H W float32; of a codebook the loss, a scalar, and the indices used, B h w."""

    decoded: Tensor
    encoded: Posterior | Codes
    codebook_loss: Tensor | None = None
    indices: Tensor | None = None


class Reconstruction(nn.Module):
    """What a run trains, together: the autoencoder, the pixels' log-variance, and how its codebook is used."""

    def __init__(
        self, autoencoder: Autoencoder, codebook: CodebookConfig, *, logvar: float = 0.0, learn_logvar: bool = False
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.logvar = nn.Parameter(torch.tensor(logvar), requires_grad=learn_logvar)
        its = autoencoder.codebook
        self.learning = None if its is None else CodebookLearning(its, codebook)

    def forward(self, image: Tensor, noise: torch.Generator) -> RoundTrip:
        """image: B 3 H W in [-1, 1], there and back through a sample of its latent or through its codes."""
        encoded = self.autoencoder.encode(image)
        if isinstance(encoded, Posterior):
            drawn = torch.randn(encoded.mean.shape, generator=noise).to(image.device)
            return RoundTrip(self.autoencoder.decode(encoded.sample(drawn)).float(), encoded)
        assert self.learning is not None  # it has a codebook
        straight, loss, indices = self.learning(encoded.latent, encoded.codebook)
        return RoundTrip(self.autoencoder.decode(straight, quantise=False).float(), encoded, loss, indices)
