"""The transformer over tokens against diffusers; against CompVis's own it stands in test_compvis.py."""

import pytest
import torch
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from network_oracles import difference, randomize

from tintype.families.diffusers_names import token_transformer_names
from tintype.models.token_transformer import TokenTransformer, TokenTransformerConfig

SMALL = TokenTransformerConfig(vocabulary_size=50, context_length=9, width=24, num_layers=3, num_heads=2, head_dim=5)


@pytest.mark.parametrize("length", [9, 4])
@torch.inference_mode()
def test_equals_diffusers(length: int) -> None:
    theirs = LDMBertModel(
        LDMBertConfig(
            vocab_size=50,
            max_position_embeddings=9,
            encoder_layers=3,
            encoder_ffn_dim=96,
            encoder_attention_heads=2,
            head_dim=5,
            d_model=24,
        )
    )
    del theirs.to_logits
    randomize(theirs)
    ours = TokenTransformer(SMALL).eval()
    names = token_transformer_names(SMALL)
    ours.load_state_dict(names.to_ours(theirs.state_dict()))
    assert names.to_theirs(ours.state_dict()).keys() == theirs.state_dict().keys()
    ids = torch.randint(50, (2, length))
    assert difference(ours(ids), theirs.model(ids, return_dict=True).last_hidden_state) <= 1e-5


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="10 tokens: this encoder reads 9 at most; cut them first"):
        TokenTransformer(SMALL)(torch.zeros(1, 10, dtype=torch.int64))
