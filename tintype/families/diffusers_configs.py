"""diffusers' and transformers' `config.json` as our configurations, and back.

What a network's class could do and ours do not is refused by name.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from tintype.common.config import Json
from tintype.diffusion.latent_space import LatentSpace
from tintype.diffusion.scaling import Prediction
from tintype.diffusion.schedule import Betas, DDPMConfig
from tintype.families.diffusers_names import Projection
from tintype.models.autoencoder import AutoencoderConfig
from tintype.models.clip import Activation, CLIPTextConfig
from tintype.models.token_transformer import TokenTransformerConfig
from tintype.models.unet import UNetConfig

T = TypeVar("T")
Config = Mapping[str, Json]

LARGEST, MOST_LAYERS = 2**20, 256  # of any size, and of layers and heads: what a configuration may ask for
BETAS: dict[str, Betas] = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
SPACING_FLAGS = {
    "use_karras_sigmas": "karras",
    "use_lu_lambdas": "lu_lambdas",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}
PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}

# The only values that our networks have, by field; a config that does not mention one has it
UNET_FIXED: dict[str, tuple[Json, ...]] = {
    "act_fn": ("silu",),
    "center_input_sample": (False,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "norm_eps": (1e-5,),
    "dropout": (0, 0.0),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1.0, 1),
    "cross_attention_norm": (None,),
    "reverse_transformer_layers_per_block": (None,),
    "mid_block_only_cross_attention": (None, False),
    "attention_type": ("default",),
}
PLAIN_UNET_FIXED: dict[str, tuple[Json, ...]] = {
    "act_fn": ("silu",),
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1,),
    "dropout": (0.0, 0),
    "norm_eps": (1e-5,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "num_train_timesteps": (None,),
}
AUTOENCODER_FIXED: dict[str, tuple[Json, ...]] = {
    "act_fn": ("silu",),
    "use_quant_conv": (True,),
    "use_post_quant_conv": (True,),
    "latents_mean": (None,),
    "latents_std": (None,),
    "norm_type": ("group",),
    "lookup_from_codebook": (False,),
}
CLIP_FIXED: dict[str, tuple[Json, ...]] = {"layer_norm_eps": (1e-5,), "hidden_act": ("quick_gelu", "gelu")}
SCHEDULE_FIXED: dict[str, tuple[Json, ...]] = {"trained_betas": (None,), "use_flow_sigmas": (None, False)}


def number_dim_from(config: Config) -> int:
    """How many cosines and sines SDXL's U-Net makes of each number beside the text."""
    return _one(config, "addition_time_embed_dim", int, 256)


def unet_from(config: Config) -> tuple[UNetConfig, Projection]:
    """UNet2DConditionModel. Raises `ValueError` for what our U-Net does not do."""
    _refuse_others("unet", config, UNET_FIXED)
    channels = _list(config, "block_out_channels", int)
    levels = len(channels)
    layers = _per_level("transformer_layers_per_block", config.get("transformer_layers_per_block", 1), levels)
    attends = [kind == "CrossAttnDownBlock2D" for kind in _list(config, "down_block_types", str)]
    for way, order in (("down", attends), ("up", attends[::-1])):
        kinds = [f"CrossAttn{way.title()}Block2D" if one else f"{way.title()}Block2D" for one in order]
        if _list(config, f"{way}_block_types", str) != kinds:
            raise ValueError(f"unet: {way}_block_types are {config[f'{way}_block_types']}; expected {kinds}")
    only_cross = _per_level("only_cross_attention", config.get("only_cross_attention", False), levels)
    heads = _per_level(
        "attention_head_dim", config.get("num_attention_heads") or config.get("attention_head_dim"), levels
    )
    sizes = {size // one for size, one in zip(channels, heads, strict=True)}
    if len(set(heads)) > 1 and len(sizes) > 1:
        raise ValueError(f"unet: attention_head_dim {heads} for channels {channels}; expected one number or one size")
    same = len(set(heads)) == 1
    unet = UNetConfig(
        in_channels=_one(config, "in_channels", int),
        out_channels=_one(config, "out_channels", int),
        width=channels[0],
        mult=tuple(size // channels[0] for size in channels),
        num_blocks=_layers(config, "layers_per_block"),
        depth=tuple(depth if one else 0 for depth, one in zip(layers, attends, strict=True)),
        middle_depth=layers[-1],
        context_dim=_one(config, "cross_attention_dim", int),
        num_heads=heads[0] if same else None,
        head_dim=None if same else sizes.pop(),
        self_attention=tuple(not one for one in only_cross) if any(only_cross) else (),
        vector_dim=_optional(config, "projection_class_embeddings_input_dim", int),
        num_classes=_optional(config, "num_class_embeds", int),
        norm_groups=_one(config, "norm_num_groups", int, 32),
        guidance_dim=_optional(config, "time_cond_proj_dim", int),
    )
    return unet, "linear" if config.get("use_linear_projection", False) else "conv"


def unet_to(config: UNetConfig, projection: Projection, *, sample_size: int, number_dim: int = 256) -> dict[str, Json]:
    """As `save_pretrained` writes it."""
    channels = [config.width * mult for mult in config.mult]
    heads = [config.heads(size)[0] for size in channels]
    written: dict[str, Json] = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": list[Json](channels),
        "layers_per_block": config.num_blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in config.depth],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in config.depth[::-1]],
        "transformer_layers_per_block": [depth or config.middle_depth for depth in config.depth],
        "cross_attention_dim": config.context_dim,
        "attention_head_dim": list[Json](heads),
        "use_linear_projection": projection == "linear",
        "only_cross_attention": [not one for one in config.self_attention] or False,
        "num_class_embeds": config.num_classes,
        "norm_num_groups": config.norm_groups,
        "time_cond_proj_dim": config.guidance_dim,
    }
    if config.vector_dim is not None:
        written |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": number_dim,
            "projection_class_embeddings_input_dim": config.vector_dim,
        }
    return written


def plain_unet_from(config: Config) -> UNetConfig:
    """UNet2DModel: attention without a context, as in LDM's unconditional models."""
    _refuse_others("unet", config, PLAIN_UNET_FIXED)
    channels = _list(config, "block_out_channels", int)
    kinds = _list(config, "down_block_types", str)
    known = {"DownBlock2D": 0, "AttnDownBlock2D": 1, "ResnetDownsampleBlock2D": 0}
    if not set(kinds) <= known.keys():
        raise ValueError(f"unet: down_block_types are {kinds}; expected {', '.join(known)}")
    size = _optional(config, "attention_head_dim", int)
    return UNetConfig(
        in_channels=_one(config, "in_channels", int),
        out_channels=_one(config, "out_channels", int),
        width=channels[0],
        mult=tuple(one // channels[0] for one in channels),
        num_blocks=_layers(config, "layers_per_block"),
        depth=tuple(known[kind] for kind in kinds),
        middle_depth=int(_one(config, "add_attention", bool, True)),
        context_dim=None,
        num_heads=1 if size is None else None,
        head_dim=size,
        scale_shift=_one(config, "resnet_time_scale_shift", str, "default") == "scale_shift",
        resample_in_blocks=_one(config, "downsample_type", str, "conv") == "resnet",
        norm_groups=_one(config, "norm_num_groups", int, 32),
    )


def plain_unet_to(config: UNetConfig, *, sample_size: int) -> dict[str, Json]:
    """As `save_pretrained` writes it. Raises `ValueError` for heads that diffusers cannot count."""
    if config.num_heads not in (None, 1):
        raise ValueError(f"{config.num_heads} heads at every width: UNet2DModel has heads of one size")
    resampling = "resnet" if config.resample_in_blocks else "conv"
    down, up = ("ResnetDown", "ResnetUp") if config.resample_in_blocks else ("Down", "Up")
    down, up = (f"{one}sampleBlock2D" if config.resample_in_blocks else f"{one}Block2D" for one in (down, up))
    return {
        "_class_name": "UNet2DModel",
        "sample_size": sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": [config.width * mult for mult in config.mult],
        "layers_per_block": config.num_blocks,
        "down_block_types": ["AttnDownBlock2D" if depth else down for depth in config.depth],
        "up_block_types": ["AttnUpBlock2D" if depth else up for depth in config.depth[::-1]],
        "downsample_type": resampling,
        "upsample_type": resampling,
        "attention_head_dim": config.head_dim,
        "add_attention": config.middle_depth > 0,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "norm_num_groups": config.norm_groups,
    }


def autoencoder_from(config: Config) -> tuple[AutoencoderConfig, LatentSpace]:
    """AutoencoderKL and VQModel."""
    _refuse_others("vae", config, AUTOENCODER_FIXED)
    channels = _list(config, "block_out_channels", int)
    kinds = _list(config, "down_block_types", str)
    if not set(kinds) <= {"DownEncoderBlock2D", "AttnDownEncoderBlock2D"}:
        raise ValueError(f"vae: down_block_types are {kinds}; expected DownEncoderBlock2D or AttnDownEncoderBlock2D")
    autoencoder = AutoencoderConfig(
        image_channels=_one(config, "in_channels", int),
        latent_channels=_one(config, "latent_channels", int),
        width=channels[0],
        mult=tuple(size // channels[0] for size in channels),
        num_blocks=_layers(config, "layers_per_block"),
        attention_levels=tuple(level for level, kind in enumerate(kinds) if kind.startswith("Attn")),
        middle_attention=_one(config, "mid_block_add_attention", bool, True),
        codebook_size=_optional(config, "num_vq_embeddings", int),
        norm_groups=_one(config, "norm_num_groups", int, 32),
    )
    shift = _optional(config, "shift_factor", float) or 0.0
    return autoencoder, LatentSpace(scale=(_one(config, "scaling_factor", float, 0.18215),), shift=(shift,))


def autoencoder_to(config: AutoencoderConfig, space: LatentSpace, *, sample_size: int) -> dict[str, Json]:
    """Raises `ValueError` for what diffusers' class cannot be: patches, a shortcut, one scale per channel."""
    scale = space.scale[0] if len(space.scale) == 1 else None
    if scale is None or config.patch_size > 1 or config.linear_shortcut or any(space.shift):
        raise ValueError("autoencoder: patches, a linear shortcut and scales per channel are unknown to diffusers")
    channels: list[Json] = [config.width * mult for mult in config.mult]
    attends = [level in config.attention_levels for level in range(len(channels))]
    written: dict[str, Json] = {
        "_class_name": "AutoencoderKL" if config.codebook_size is None else "VQModel",
        "sample_size": sample_size,
        "in_channels": config.image_channels,
        "out_channels": config.image_channels,
        "latent_channels": config.latent_channels,
        "block_out_channels": channels,
        "layers_per_block": config.num_blocks,
        "down_block_types": ["AttnDownEncoderBlock2D" if one else "DownEncoderBlock2D" for one in attends],
        "up_block_types": ["AttnUpDecoderBlock2D" if one else "UpDecoderBlock2D" for one in attends[::-1]],
        "mid_block_add_attention": config.middle_attention,
        "norm_num_groups": config.norm_groups,
        "scaling_factor": scale,
    }
    return written | ({} if config.codebook_size is None else {"num_vq_embeddings": config.codebook_size})


def clip_text_from(config: Config) -> CLIPTextConfig:
    """CLIPTextModel; with a projection when `architectures` says CLIPTextModelWithProjection."""
    _refuse_others("text_encoder", config, CLIP_FIXED)
    width = _one(config, "hidden_size", int)
    if _one(config, "intermediate_size", int) != 4 * width:
        raise ValueError(f"text_encoder: intermediate_size is {config['intermediate_size']}; expected {4 * width}")
    projects = "CLIPTextModelWithProjection" in _list(config, "architectures", str)
    return CLIPTextConfig(
        vocabulary_size=_one(config, "vocab_size", int, 49_408),
        context_length=_one(config, "max_position_embeddings", int, 77),
        width=width,
        num_layers=_layers(config, "num_hidden_layers"),
        num_heads=_one(config, "num_attention_heads", int),
        activation=cast("Activation", _one(config, "hidden_act", str, "quick_gelu")),
        projection_dim=_one(config, "projection_dim", int, 512) if projects else None,
    )


def clip_text_to(config: CLIPTextConfig) -> dict[str, Json]:
    """As `save_pretrained` writes it."""
    return {
        "architectures": ["CLIPTextModelWithProjection" if config.projection_dim else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": config.vocabulary_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "hidden_act": config.activation,
        "layer_norm_eps": 1e-5,
        "projection_dim": config.projection_dim or config.width,
        "bos_token_id": 49_406,
        "eos_token_id": 49_407,
        "pad_token_id": 1,
    }


def token_transformer_from(config: Config) -> TokenTransformerConfig:
    """LDMBertModel."""
    width = _one(config, "d_model", int)
    _refuse_others("bert", config, {"encoder_ffn_dim": (4 * width,), "activation_function": ("gelu",)})
    return TokenTransformerConfig(
        vocabulary_size=_one(config, "vocab_size", int),
        context_length=_one(config, "max_position_embeddings", int),
        width=width,
        num_layers=_layers(config, "encoder_layers"),
        num_heads=_one(config, "encoder_attention_heads", int),
        head_dim=_one(config, "head_dim", int),
    )


def token_transformer_to(config: TokenTransformerConfig) -> dict[str, Json]:
    """As `save_pretrained` writes it."""
    return {
        "architectures": ["LDMBertModel"],
        "model_type": "ldmbert",
        "vocab_size": config.vocabulary_size,
        "max_position_embeddings": config.context_length,
        "d_model": config.width,
        "encoder_layers": config.num_layers,
        "encoder_ffn_dim": 4 * config.width,
        "encoder_attention_heads": config.num_heads,
        "head_dim": config.head_dim,
        "activation_function": "gelu",
        "pad_token_id": 0,
    }


def schedule_from(config: Config) -> tuple[DDPMConfig, Prediction]:
    """Any of diffusers' schedulers over a discrete schedule."""
    _refuse_others("scheduler", config, SCHEDULE_FIXED)
    betas, prediction = _one(config, "beta_schedule", str), _one(config, "prediction_type", str, "epsilon")
    for name, value, known in (
        ("beta_schedule", betas, list(BETAS)),
        ("prediction_type", prediction, list(PREDICTIONS)),
    ):
        if value not in known:
            raise ValueError(f"scheduler: {name} is {value!r}; expected {', '.join(known)}")
    schedule = DDPMConfig(
        betas=BETAS[betas],
        start=_one(config, "beta_start", float),
        end=_one(config, "beta_end", float),
        steps=_one(config, "num_train_timesteps", int),
        zero_terminal_snr=_one(config, "rescale_betas_zero_snr", bool, False),
    )
    return schedule, PREDICTIONS[prediction]


def schedule_to(config: DDPMConfig, prediction: Prediction) -> dict[str, Json]:
    """As Stable Diffusion's repositories have it (steps_offset 1, set_alpha_to_one false)."""
    betas = {ours: theirs for theirs, ours in BETAS.items()}
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if config.betas not in betas or prediction not in predictions:
        raise ValueError(f"schedule {config.betas}, prediction {prediction}: unknown to diffusers")
    return {
        "_class_name": "DDIMScheduler",
        "beta_schedule": betas[config.betas],
        "beta_start": config.start,
        "beta_end": config.end,
        "num_train_timesteps": config.steps,
        "prediction_type": predictions[prediction],
        "rescale_betas_zero_snr": config.zero_terminal_snr,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "trained_betas": None,
    }


def _refuse_others(part: str, config: Config, fixed: Mapping[str, tuple[Json, ...]]) -> None:
    for name, values in fixed.items():
        if name in config and config[name] not in values:
            expected = " or ".join(repr(value) for value in values)
            raise ValueError(f"{part}: {name} is {config[name]!r}; expected {expected}; ours does not do otherwise")


def _one(config: Config, name: str, kind: type[T], default: T | None = None) -> T:
    value: object = config.get(name, cast("Json", default))
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (kind is int and not 1 <= cast("int", value) <= LARGEST):
        raise ValueError(
            f"{name} is {value!r}; expected {kind.__name__}" + (f", 1 to {LARGEST}" if kind is int else "")
        )
    return value


def _counts(value: Json) -> bool:
    return type(value) is int and 1 <= value <= MOST_LAYERS


def _layers(config: Config, name: str) -> int:
    if not _counts(config.get(name)):
        raise ValueError(f"{name} is {config.get(name)!r}; expected a whole number from 1 to {MOST_LAYERS}")
    return _one(config, name, int)


def _optional(config: Config, name: str, kind: type[T]) -> T | None:
    return None if config.get(name) is None else _one(config, name, kind)


def _list(config: Config, name: str, kind: type[T]) -> list[T]:
    values = config.get(name)
    if not isinstance(values, list) or not values or not all(isinstance(value, kind) for value in values):
        raise ValueError(f"{name} is {values!r}; expected a list of {kind.__name__}")
    if kind is int and not all(1 <= cast("int", value) <= LARGEST for value in values):
        raise ValueError(f"{name} is {values!r}; expected whole numbers from 1 to {LARGEST}")
    return cast("list[T]", values)


def _per_level(name: str, value: Json, levels: int) -> list[int]:
    found: Sequence[Json] = value if isinstance(value, list) else [value] * levels
    if len(found) != levels or not all(isinstance(one, bool) or _counts(one) for one in found):
        raise ValueError(
            f"{name} is {value!r}; expected a whole number to {MOST_LAYERS}, or one for each of {levels} levels"
        )
    return cast("list[int]", list(found))
