"""What transformers and open_clip call the parameters of a whole CLIP, both towers."""

from collections.abc import Iterator

from tintype.common.keymap import Fused, KeyMap, Layout, Rule, inside, module
from tintype.families.diffusers_names import TEXT_LAYER, clip_text_names
from tintype.families.ldm_names import TURNED, open_clip_layers, open_clip_names
from tintype.models.clip_image import CLIPImageConfig
from tintype.models.clip_pair import CLIPConfig

SCALAR = Layout(to_ours=lambda scale: scale.reshape(1), to_theirs=lambda scale: scale.reshape(()))


def transformers_clip_names(config: CLIPConfig) -> KeyMap:
    """transformers' CLIPModel. It has no name for a bias of the logits."""
    towers = (
        clip_text_names(config.text).below("text.", ""),
        clip_image_names(config.image).below("image.", ""),
    )
    return KeyMap([*(rule for tower in towers for rule in tower.rules), *_numbers(config)])


def open_clip_pair_names(config: CLIPConfig) -> KeyMap:
    """OpenCLIP's and OpenAI's CLIP, with their own vision transformer."""
    towers = (
        open_clip_names(config.text).below("text.", ""),
        KeyMap(_open_clip_image(config.image)).below("image.", "visual."),
    )
    return KeyMap([*(rule for tower in towers for rule in tower.rules), *_numbers(config)])


def clip_image_names(config: CLIPImageConfig) -> KeyMap:
    """transformers' CLIPVisionModelWithProjection, or without a projection CLIPVisionModel."""
    return KeyMap(_image(config))


def _image(config: CLIPImageConfig) -> Iterator[Rule]:
    embeddings = "vision_model.embeddings"
    yield Rule("patch_embedding.weight", f"{embeddings}.patch_embedding.weight")
    yield Rule("class_embedding", f"{embeddings}.class_embedding")
    yield Rule("position_embedding.weight", f"{embeddings}.position_embedding.weight")
    yield from module("norm_in", "vision_model.pre_layrnorm")  # spelt so
    for layer in range(config.num_layers):
        yield from inside(f"layers.{layer}", f"vision_model.encoder.layers.{layer}", TEXT_LAYER)
    yield from module("norm", "vision_model.post_layernorm")
    if config.projection_dim:
        yield Rule("projection.weight", "visual_projection.weight")


def _open_clip_image(config: CLIPImageConfig) -> Iterator[Rule | Fused]:
    yield Rule("patch_embedding.weight", "conv1.weight")
    yield Rule("class_embedding", "class_embedding")
    yield Rule("position_embedding.weight", "positional_embedding")
    yield from module("norm_in", "ln_pre")
    yield from open_clip_layers(config.num_layers)
    yield from module("norm", "ln_post")
    if config.projection_dim:
        yield Rule("projection.weight", "proj", TURNED)


def _numbers(config: CLIPConfig) -> Iterator[Rule]:
    yield Rule("logit_scale", "logit_scale", SCALAR)
    if config.logit_bias:
        yield Rule("logit_bias", "logit_bias", SCALAR)
