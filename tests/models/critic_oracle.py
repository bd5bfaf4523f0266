"""taming-transformers' critic, and our critic's weights under its names."""

import torch
from taming.modules.discriminator.model import NLayerDiscriminator, weights_init
from torch import Tensor, nn

from tintype.models.critic import Critic, CriticConfig


def their_critic(config: CriticConfig) -> nn.Module:
    norm = config.norm == "act"
    return NLayerDiscriminator(config.image_channels, config.width, config.num_layers, norm).apply(weights_init).train()


def critic_names(critic: Critic) -> dict[str, str]:
    """Our name of each parameter: theirs. They count convolutions, norms and rectifiers in one row."""
    count = critic.config.num_layers
    modules = {"conv_in": 0, "conv_out": 3 * count + 2}
    modules |= {f"convs.{level}": 3 * level + 2 for level in range(count)}
    modules |= {f"norms.{level}": 3 * level + 3 for level in range(count)}
    split = {name: name.rpartition(".") for name in critic.state_dict()}
    return {name: f"main.{modules[module]}.{kind}" for name, (module, _, kind) in split.items()}


def take_weights(critic: Critic, theirs: nn.Module) -> None:
    """Give ours the weights of theirs, all but running statistics."""
    state: dict[str, Tensor] = theirs.state_dict()
    own, names = critic.state_dict(), critic_names(critic)
    left = [name for name in state.keys() - set(names.values()) if not name.endswith(("_mean", "_var"))]
    assert all(name.endswith(("num_batches_tracked", "initialized")) for name in left), left
    critic.load_state_dict({name: state[names[name]].view_as(value) for name, value in own.items()})
    assert all(torch.isfinite(value).all() for value in own.values())
