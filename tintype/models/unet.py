"""The U-Net of latent diffusion: one dataclass says which of the Stable Diffusion or LDM networks it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tintype.common.config import added
from tintype.nn.attention import AttentionBlock, KeysValues, SpatialTransformer
from tintype.nn.blocks import Downsample, ResBlock, Upsample
from tintype.nn.embedding import guidance_embedding, timestep_embedding
from tintype.nn.layers import Layers, check_groups, to_channels_last
from tintype.nn.lean import lean

TransformerKV = tuple[tuple[KeysValues, ...], ...]  # one entry per block of a spatial transformer
ContextKV = tuple[TransformerKV, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetConfig:
    """Per level of `mult`, from the finest: channels = width * mult, `depth` transformer blocks after each residual
    block (0: no attention). Without `context_dim` attention is plain self-attention. Give `num_heads` or `head_dim`.
    Defaults are Stable Diffusion 1.x.
    """

    in_channels: int = 4
    out_channels: int = 4
    width: int = 320
    mult: tuple[int, ...] = (1, 2, 4, 4)
    num_blocks: int = 2  # residual blocks per level going down; one more going up
    depth: tuple[int, ...] = (1, 1, 1, 0)
    middle_depth: int = 1
    context_dim: int | None = 768
    num_heads: int | None = 8
    head_dim: int | None = None
    self_attention: tuple[bool, ...] = ()  # per level; empty = everywhere (False only in SD 2's x4 upscaler)
    vector_dim: int | None = None  # SDXL: pooled text and sizes, added to the time embedding
    num_classes: int | None = None  # or a class label (x4 upscaler: noise level), added likewise
    scale_shift: bool = False  # time acts as scale and shift of a norm (LSUN churches)
    resample_in_blocks: bool = False  # residual blocks change the resolution (LSUN churches, inpainting_big)
    norm_groups: int = 32
    guidance_dim: int | None = added(None)  # latent consistency models: told the guidance scale, with the time

    def __post_init__(self) -> None:
        if self.width < 1 or min(self.mult, default=0) < 1:
            raise ValueError(f"width {self.width}, mult {self.mult}: expected 1 or more everywhere")
        for name, entries in (("depth", self.depth), ("self_attention", self.self_attention or self.depth)):
            if len(entries) != len(self.mult):
                raise ValueError(f"{name} {entries} and mult {self.mult}: one entry per level is expected in both")
        if (self.num_heads is None) == (self.head_dim is None):
            raise ValueError(f"num_heads {self.num_heads}, head_dim {self.head_dim}: give exactly one of them")
        if self.vector_dim is not None and self.num_classes is not None:
            raise ValueError("vector_dim and num_classes: a network takes a vector or a class, not both")

    def heads(self, channels: int) -> tuple[int, int]:
        """(number of heads, size of one) for this many channels."""
        divisor = self.num_heads or self.head_dim or 1
        if channels % divisor:
            raise ValueError(
                f"{channels} channels do not divide into heads (num_heads {self.num_heads}, head_dim {self.head_dim}); "
                "expected a divisor of every level's width"
            )
        return (self.num_heads, channels // divisor) if self.num_heads else (channels // divisor, divisor)


class Stage(nn.Module):
    """A residual block and, at most levels, attention."""

    def __init__(self, block: ResBlock, attention: SpatialTransformer | AttentionBlock | None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    @property
    def reads(self) -> bool:
        """Whether it takes keys and values of the context."""
        return isinstance(self.attention, SpatialTransformer)

    def forward(self, x: Tensor, shift: Tensor, context: TransformerKV) -> Tensor:
        x = self.block(x, shift)
        if isinstance(self.attention, SpatialTransformer):
            return self.attention(x, context)
        return x if self.attention is None else self.attention(x)


class Level(nn.Module):
    """The stages of one resolution and what leads to the next one."""

    def __init__(self, stages: list[Stage], resample: Downsample | Upsample | ResBlock | None) -> None:
        super().__init__()
        self.stages = Layers(stages)
        self.resample = resample

    def resampled(self, x: Tensor, shifts: Iterator[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """`size`: (height, width) that growing must reach, since halving an odd side rounds up."""
        match self.resample:
            case None:
                return x
            case ResBlock():
                return self.resample(x, next(shifts))
            case Upsample():
                return self.resample(x, size)
            case _:
                return self.resample(x)


class UNet(nn.Module):
    """(x: B C h w, t: B in steps, context: B L D, vector: B V or class ids B) -> B C' h w.

    `bind` does what a prompt needs once (keys, values, embeddings) and returns the (x, t) function of the steps.
    With `checkpointing` training keeps each stage's input alone and computes the rest of it again on the way back
    (Chen et al. 2016): a third more time, the same gradients.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        check_groups(config.norm_groups, [config.width * mult for mult in (1, *config.mult)])
        self.config = config
        self.checkpointing = False
        width, emb = config.width, 4 * config.width
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.guidance_embed = nn.Linear(config.guidance_dim, width, bias=False) if config.guidance_dim else None
        self.vector_embed = _vector_embed(config, emb)
        self.conv_in = nn.Conv2d(config.in_channels, width, 3, padding=1)

        # Down: the output of every stage and of every halving is kept for the way up
        channels, kept = width, [width]
        down: list[Level] = []
        for level, mult in enumerate(config.mult):
            stages: list[Stage] = []
            for _ in range(config.num_blocks):
                stages.append(self._stage(channels, width * mult, level))
                channels = width * mult
                kept.append(channels)
            last = level + 1 == len(config.mult)
            down.append(Level(stages, None if last else self._resample(channels, "down")))
            if not last:
                kept.append(channels)
        self.down = Layers(down)

        middle_attention = self._attention(channels, config.middle_depth, len(config.mult) - 1)
        self.middle = Layers(
            [
                Stage(self._block(channels, channels), middle_attention),
                Stage(self._block(channels, channels), None),
            ]
        )

        # Up: one stage more per level, each fed with what was kept
        up: list[Level] = []
        for level, mult in reversed(list(enumerate(config.mult))):
            stages = []
            for _ in range(config.num_blocks + 1):
                stages.append(self._stage(channels + kept.pop(), width * mult, level))
                channels = width * mult
            up.append(Level(stages, self._resample(channels, "up") if level > 0 else None))
        self.up = Layers(up)

        self.norm_out = nn.GroupNorm(config.norm_groups, width, eps=1e-5)
        self.conv_out = nn.Conv2d(width, config.out_channels, 3, padding=1)
        for name, module in self.named_modules():  # residual blocks and the output start at zero, as transformers do
            if name.endswith(("conv2", "conv_out")) and isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.weight)
        self.res_blocks = [module for module in self.modules() if isinstance(module, ResBlock)]
        self._transformers = [module for module in self.modules() if isinstance(module, SpatialTransformer)]
        to_channels_last(self)

    def _block(self, in_channels: int, out_channels: int, resample: Literal["up", "down"] | None = None) -> ResBlock:
        config = self.config
        return ResBlock(
            in_channels,
            out_channels,
            shift_dim=4 * config.width,
            scale_shift=config.scale_shift,
            resample=resample,
            norm_groups=config.norm_groups,
        )

    def _attention(self, channels: int, depth: int, level: int) -> SpatialTransformer | AttentionBlock | None:
        config = self.config
        if depth == 0:
            return None
        num_heads, head_dim = config.heads(channels)
        if config.context_dim is None:
            return AttentionBlock(channels, num_heads=num_heads, eps=1e-5, norm_groups=config.norm_groups)
        return SpatialTransformer(
            channels,
            depth=depth,
            num_heads=num_heads,
            head_dim=head_dim,
            context_dim=config.context_dim,
            self_attention=config.self_attention[level] if config.self_attention else True,
            norm_groups=config.norm_groups,
        )

    def _stage(self, in_channels: int, out_channels: int, level: int) -> Stage:
        block = self._block(in_channels, out_channels)
        return Stage(block, self._attention(out_channels, self.config.depth[level], level))

    def _resample(self, channels: int, direction: Literal["up", "down"]) -> Downsample | Upsample | ResBlock:
        if self.config.resample_in_blocks:
            return self._block(channels, channels, direction)
        return Downsample(channels) if direction == "down" else Upsample(channels)

    # What depends on time and on the prompt

    def embedding(self, t: Tensor, vector_embedding: Tensor | None, guidance: Tensor | None = None) -> Tensor:
        time = timestep_embedding(t, self.config.width).to(self.conv_in.weight.dtype)  # B width
        emb = self.time_embed(time if guidance is None else time + guidance)  # B 4*width
        return F.silu(emb if vector_embedding is None else emb + vector_embedding)

    def embedded_vector(self, vector: Tensor | None) -> Tensor | None:
        if (vector is None) != (self.vector_embed is None):
            got, expected = ("no", "a") if vector is None else ("a", "no")
            raise ValueError(f"got {got} vector conditioning; this U-Net expects {expected} vector")
        return None if self.vector_embed is None or vector is None else self.vector_embed(vector)

    def embedded_guidance(self, scale: float | None) -> Tensor | None:
        if (scale is None) != (self.guidance_embed is None):
            expected = "one: bind what `at_guidance` returns" if scale is None else "none, guidance is around it"
            raise ValueError(f"got guidance scale {scale}; this U-Net expects {expected}")
        if self.guidance_embed is None or scale is None:
            return None
        weight = self.guidance_embed.weight
        return self.guidance_embed(guidance_embedding(scale, weight.shape[1], device=weight.device).to(weight.dtype))

    def keys_values(self, context: Tensor | None) -> ContextKV:
        got = None if context is None else context.shape[-1]
        expected = self.config.context_dim if self._transformers else None
        if got != expected:
            raise ValueError(f"got {_context_of(got)}; this U-Net expects {_context_of(expected)}")
        return () if context is None else tuple(one.keys_values(context) for one in self._transformers)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | None = None,
        vector: Tensor | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        emb = self.embedding(t, self.embedded_vector(vector), self.embedded_guidance(guidance))
        shifts = [_projection(block)(emb) for block in self.res_blocks]
        return self.run(x, shifts, self.keys_values(context))

    def bind(self, context: Tensor | None, vector: Tensor | None) -> "BoundUNet":
        """The network with its prompt filled in."""
        return BoundUNet(self, context, vector)

    def bind_perturbed(self, context: Tensor | None, vector: Tensor | None) -> "BoundUNet":
        """The same with the self-attention of the middle reading nothing but each place itself (Ahn et al. 2024).

        Raises `ValueError` for a network without self-attention there.
        """
        return BoundUNet(self, context, vector).perturbed()

    def at_guidance(self, scale: float) -> "GuidedUNet":
        """The network with its guidance scale filled in. Raises `ValueError` when used if it was not taught to hear
        one."""
        return GuidedUNet(self, scale)

    def run(self, x: Tensor, shifts: list[Tensor], context: ContextKV) -> Tensor:
        each_shift, each_context = iter(shifts), iter(context)
        recompute = self.checkpointing and torch.is_grad_enabled()

        def through(stage: Stage, x: Tensor) -> Tensor:
            given = next(each_shift), next(each_context) if stage.reads else ()
            return checkpoint(stage, x, *given, use_reentrant=False) if recompute else stage(x, *given)

        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))  # B width h w
        kept = [x]
        for level in self.down:
            for stage in level.stages:
                x = through(stage, x)
                kept.append(x)
            if level.resample is not None:
                x = level.resampled(x, each_shift)
                kept.append(x)
        for stage in self.middle:
            x = through(stage, x)
        for level in self.up:
            for stage in level.stages:
                x = through(stage, torch.cat((x, kept.pop()), dim=1))
            if level.resample is not None:
                height, width = kept[-1].shape[-2:]
                x = level.resampled(x, each_shift, (height, width))
        return self.conv_out(F.silu(self.norm_out(x)))


@dataclass(frozen=True, slots=True)
class GuidedUNet:
    """A U-Net that is told the guidance scale, and this scale: what it takes beside is as of `UNet`."""

    unet: UNet
    scale: float

    def __call__(self, x: Tensor, t: Tensor, context: Tensor | None = None, vector: Tensor | None = None) -> Tensor:
        return self.unet(x, t, context, vector, self.scale)

    def bind(self, context: Tensor | None, vector: Tensor | None) -> "BoundUNet":
        return BoundUNet(self.unet, context, vector, self.scale)

    def bind_perturbed(self, context: Tensor | None, vector: Tensor | None) -> "BoundUNet":
        return BoundUNet(self.unet, context, vector, self.scale).perturbed()


class BoundUNet:
    """(x, t) -> output for one prompt: keys and values, the vector embedding, the stacked projections of the time
    embedding and the lean copy of the network are made once, here."""

    def __init__(
        self, unet: UNet, context: Tensor | None, vector: Tensor | None, guidance: float | None = None
    ) -> None:
        projections = [_projection(block) for block in unet.res_blocks]
        self._unet = lean(unet)
        self._context = unet.keys_values(context)
        self._vector_embedding = unet.embedded_vector(vector)
        self._guidance = unet.embedded_guidance(guidance)
        self._weight = torch.cat([projection.weight for projection in projections])
        self._bias = torch.cat([projection.bias for projection in projections])
        self._sizes = [projection.out_features for projection in projections]

    def perturbed(self) -> "BoundUNet":
        """Changes this one's own lean copy."""
        attentions = [stage.attention for stage in self._unet.middle if stage.attention is not None]
        if not attentions:
            raise ValueError("this U-Net has no self-attention in its middle to perturb; leave out pag_scale")
        for one in attentions:
            if isinstance(one, AttentionBlock):
                vars(one)["attention"] = one.attention.own_values
            else:
                for block in one.blocks:
                    vars(block)["attn1"] = block.attn1.own_values
        return self

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        emb = self._unet.embedding(t, self._vector_embedding, self._guidance)
        shifts = F.linear(emb, self._weight, self._bias).split(self._sizes, dim=1)
        return self._unet.run(x, list(shifts), self._context)


def _projection(block: ResBlock) -> nn.Linear:
    assert block.shift_proj is not None  # every block of a U-Net is made with shift_dim
    return block.shift_proj


def _context_of(width: int | None) -> str:
    return "no context" if width is None else f"a context of width {width}"


def _vector_embed(config: UNetConfig, emb: int) -> nn.Module | None:
    if config.num_classes is not None:
        return nn.Embedding(config.num_classes, emb)
    if config.vector_dim is not None:
        return nn.Sequential(nn.Linear(config.vector_dim, emb), nn.SiLU(), nn.Linear(emb, emb))
    return None
