import pytest
import torch
from clip_oracles import give, their_tokenizer, their_tower
from diffusers import StableDiffusionPipeline

from tintype.conditioning.prompt import Prompt
from tintype.conditioning.text import TextConditioner, TextConfig, word_ids, words_of
from tintype.conditioning.tokenizer import END, START, tokenize
from tintype.models.clip import CLIPTextConfig

WORDS = ("a", "apple", "on", "red", "white", "axolotl", "background", ",")


def clip(**changes: int | None) -> CLIPTextConfig:
    return CLIPTextConfig(
        **{"vocabulary_size": 49_408, "context_length": 12, "width": 16, "num_layers": 1, "num_heads": 2, **changes}
    )


def taught(words: tuple[str, ...] = WORDS, *, pooled: bool = True) -> TextConditioner:
    torch.manual_seed(0)
    config = TextConfig(clip=clip(vocabulary_size=len(word_ids(words))), words=words, pooled=pooled)
    return TextConditioner(config).eval()


@pytest.fixture(scope="module")
def whole() -> TextConditioner:
    """Over all of CLIP's vocabulary."""
    torch.manual_seed(1)
    return TextConditioner(TextConfig(clip=clip())).eval()


def test_word_ids_are_sorted_and_framed() -> None:
    ids = word_ids(["apple", "Apple", "red"])
    assert ids == tuple(sorted({*tokenize("apple")[0][1], *tokenize("red")[0][1], START, END}))
    assert len(word_ids(["axolotl"])) == len(set(tokenize("axolotl")[0][1])) + 2 > 3


def test_words_of() -> None:
    assert words_of(["A red apple,", "a RED ball", ""]) == (",", "a", "apple", "ball", "red")


def test_a_wrong_vocabulary_size_is_named() -> None:
    right = len(word_ids(WORDS))
    with pytest.raises(ValueError, match=rf"vocabulary_size 5: the 8 words make {right} tokens; use that number"):
        TextConditioner(TextConfig(clip=clip(vocabulary_size=5), words=WORDS))


def test_tokens_are_framed_and_padded(whole: TextConditioner) -> None:
    tokens = whole.tokens(["A picture of a puppy", "", "a"])
    assert tokens.ids.dtype == torch.int64
    assert tokens.ids.tolist() == [
        [49406, 320, 1674, 539, 320, 6829] + [49407] * 6,
        [49406] + [49407] * 11,
        [49406, 320] + [49407] * 10,
    ]
    assert tokens.end.tolist() == [6, 1, 2]


def test_context_and_pooled_text(whole: TextConditioner) -> None:
    with torch.no_grad():
        tokens = whole.tokens(["a red apple", ""])
        out = whole.encoder(tokens.ids, tokens.end)
        for pooled in (True, False):
            conditioner = TextConditioner(TextConfig(clip=clip(), pooled=pooled)).eval()
            conditioner.load_state_dict(whole.state_dict())
            cond = conditioner(["a red apple", ""])
            assert cond.context is not None
            assert torch.equal(cond.context, out.last)
            assert cond.context.shape == (2, 12, 16)
            assert cond.concat is None
            assert (cond.vector is not None) == pooled
            if cond.vector is not None:
                assert torch.equal(cond.vector, torch.stack([out.last[0, 4], out.last[1, 1]]))


def test_padding_does_not_reach_the_words(whole: TextConditioner) -> None:
    """The tower is causal: a text's vectors up to its end do not depend on what follows."""
    with torch.no_grad():
        one = whole(["a red apple"]).context
        two = whole(["a red apple on a white horse"]).context
    assert one is not None
    assert two is not None
    assert torch.allclose(one[:, :4], two[:, :4], atol=1e-6)
    assert not torch.allclose(one[:, 4], two[:, 4], atol=1e-3)


def test_a_row_does_not_depend_on_its_batch(whole: TextConditioner) -> None:
    with torch.no_grad():
        many, alone = whole(["a red apple", "axolotl", ""]).context, whole(["axolotl"]).context
    assert many is not None
    assert alone is not None
    assert torch.allclose(many[1], alone[0], atol=1e-6)


def test_taught_words_use_their_own_rows(whole: TextConditioner) -> None:
    """A tower over a few words, given those rows of the whole table, says what the whole one says."""
    small = taught(pooled=False)
    state = dict(whole.state_dict())
    name = "encoder.token_embedding.weight"
    state[name] = state[name][list(word_ids(WORDS))]
    small.load_state_dict(state)
    prompts = ["a red apple on a white background", "axolotl, apple", "", "RED red"]
    with torch.no_grad():
        a, b = small(prompts).context, whole(prompts).context
    assert a is not None
    assert b is not None
    assert torch.equal(a, b)
    assert small.tokens(prompts).ids.max() < len(word_ids(WORDS))


def test_unknown_words_are_left_out_and_named_once() -> None:
    conditioner = taught()
    reading = conditioner.read("a shiny red Zebra on a SHINY background")
    assert reading.unknown == ("shiny", "zebra")
    assert reading.cut == ()
    assert reading.ids == conditioner.read("a red on a background").ids
    assert conditioner.read("zebra").ids == ()


def test_a_prefix_of_a_taught_word_is_unknown() -> None:
    """The tokens of a taught word are taught, but not every word they make."""
    pieces = tokenize("axolotl")[0][1]
    assert len(pieces) > 1
    assert taught().read("ax xolotl").unknown == ("ax", "xolotl")


def test_words_that_do_not_fit_are_named() -> None:
    conditioner = taught()
    fitting = "red apple " * 5
    reading = conditioner.read(fitting)
    assert (len(reading.ids), reading.cut) == (10, ())
    reading = conditioner.read(fitting + "on white zebra a")
    assert reading.ids == conditioner.read(fitting).ids
    assert reading.cut == ("on", "white", "a")
    assert reading.unknown == ("zebra",)
    tokens = conditioner.tokens([fitting + "on white"])
    assert tokens.ids.shape == (1, 12)
    assert tokens.end.tolist() == [11]


def test_a_word_is_cut_whole_and_what_follows_with_it() -> None:
    conditioner = taught()
    pieces = len(tokenize("axolotl")[0][1])
    prompt = "red " * (10 - pieces + 1) + "axolotl a"
    reading = conditioner.read(prompt)
    assert len(reading.ids) == 10 - pieces + 1
    assert reading.cut == ("axolotl", "a")  # "a" would fit, but a text with a hole says something else


def test_without_a_word_list_every_word_is_known(whole: TextConditioner) -> None:
    assert whole.read("zyzzyva 🍎 ξ").unknown == ()


def test_the_empty_conditioning_is_that_of_no_words() -> None:
    conditioner = taught()
    with torch.no_grad():
        empty, nothing = conditioner.empty(3), conditioner(["", "zebra", " "])
    for one, other in ((empty.context, nothing.context), (empty.vector, nothing.vector)):
        assert one is not None
        assert other is not None
        assert len(one) == 3
        assert torch.allclose(one, other, atol=1e-6)


# Which layer is read, and what follows a text

SMALL = clip(context_length=77, num_layers=3)
PROMPT = "a red apple on a white horse"


@pytest.mark.parametrize("clip_skip", [None, 1, 2])
def test_clip_skip_equals_diffusers(clip_skip: int | None) -> None:
    """Theirs counts the layers left out; A1111's and ours the layer read, from the end."""
    theirs = their_tower(SMALL, 3)
    object.__setattr__(theirs, "text_model", theirs)  # diffusers 0.42 looks for a level that transformers 5.6 left out
    pipeline = StableDiffusionPipeline(
        None, theirs, their_tokenizer(), None, None, None, None, requires_safety_checker=False
    )
    conditioner = TextConditioner(TextConfig(clip=SMALL))
    give(conditioner.encoder, theirs)
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt(PROMPT, "cpu", 1, False, clip_skip=clip_skip)
        got = conditioner([Prompt(text=PROMPT, clip_skip=1 + (clip_skip or 0))]).context
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("final_norm", [True, False])
def test_layer_and_final_norm(layer: int, final_norm: bool) -> None:
    theirs = their_tower(SMALL, 4)
    conditioner = TextConditioner(TextConfig(clip=SMALL, layer=layer, final_norm=final_norm, pad="zero"))
    give(conditioner.encoder, theirs)
    ids = their_tokenizer("!")([PROMPT, ""], padding="max_length", return_tensors="pt").input_ids
    assert conditioner.tokens([PROMPT, ""]).ids.tolist() == ids.tolist()
    with torch.no_grad():
        hidden = theirs(ids, output_hidden_states=True).hidden_states[-1 - layer]
        expected = theirs.final_layer_norm(hidden) if final_norm else hidden
        torch.testing.assert_close(conditioner([PROMPT, ""]).context, expected, rtol=0, atol=1e-5)
        # a family's own layer is never passed towards the end
        last = conditioner([Prompt(text=PROMPT, clip_skip=1), Prompt(text="")]).context
        torch.testing.assert_close(last, expected, rtol=0, atol=1e-5)


def test_zeros_after_the_end_leave_the_pooled_text_there() -> None:
    config = clip(context_length=77, num_layers=3, projection_dim=20)
    theirs = their_tower(config, 5)
    conditioner = TextConditioner(TextConfig(clip=config, pad="zero", pooled=True))
    give(conditioner.encoder, theirs)
    ids = their_tokenizer("!")([PROMPT, ""], padding="max_length", return_tensors="pt").input_ids
    assert ids[1].tolist() == [START, END] + [0] * 75
    with torch.no_grad():
        torch.testing.assert_close(conditioner([PROMPT, ""]).vector, theirs(ids).text_embeds, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer": 4}, "layer 4: expected 0 to 3"),
        ({"layer": -1}, "layer -1: expected 0 to 3"),
        ({"pad": "zero", "words": ("a",)}, "expected 'end' for a model with words"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TextConfig(clip=SMALL, **settings)


@pytest.mark.parametrize("clip_skip", [0, 2])
def test_more_clip_skip_than_layers_is_refused(whole: TextConditioner, clip_skip: int) -> None:
    with pytest.raises(ValueError, match=f"clip_skip {clip_skip}: expected 1 to 1"):
        whole([Prompt(text="a", clip_skip=clip_skip)])


def test_one_batch_has_one_clip_skip() -> None:
    conditioner = TextConditioner(TextConfig(clip=SMALL))
    with pytest.raises(ValueError, match=r"ask for clip_skip \[1, 2\]; expected the same for all"):
        conditioner(["a", Prompt(text="a", clip_skip=2)])


# A1111's prompts

LONG = CLIPTextConfig(width=16, num_layers=2, num_heads=2)


@pytest.fixture(scope="module")
def long() -> TextConditioner:
    conditioner = TextConditioner(TextConfig(clip=LONG, pooled=True))
    give(conditioner.encoder, their_tower(LONG, 6))
    return conditioner


def context(conditioner: TextConditioner, text: str, *, style: str = "a1111") -> torch.Tensor:
    with torch.no_grad():
        found = conditioner([Prompt(text=text, style=style)]).context
    assert found is not None
    return found


def test_long_texts_are_their_chunks_one_after_the_other(long: TextConditioner) -> None:
    theirs = their_tower(LONG, 6)
    texts = ["red " * 75, "apple " * 75, "on a horse"]
    ids = their_tokenizer()(texts, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        out = theirs(ids)
        prompt = Prompt(text="".join(texts), style="a1111")
        cond = long([prompt])
    torch.testing.assert_close(cond.context, out.last_hidden_state.flatten(0, 1)[None], rtol=0, atol=1e-5)
    torch.testing.assert_close(cond.vector, out.pooler_output[:1], rtol=0, atol=1e-5)
    assert context(long, "red BREAK apple").shape == (1, 154, 16)
    torch.testing.assert_close(
        context(long, "red BREAK apple"), torch.cat((context(long, "red"), context(long, "apple")), dim=1)
    )


def test_a_batch_is_as_long_as_its_longest(long: TextConditioner) -> None:
    with torch.no_grad():
        both = long([Prompt(text="red BREAK apple", style="a1111"), "red"])
    assert both.context is not None
    assert both.vector is not None
    torch.testing.assert_close(both.context[:1], context(long, "red BREAK apple"))
    torch.testing.assert_close(both.context[1:], torch.cat((context(long, "red"), context(long, "")), dim=1))
    assert both.vector.shape == (2, 16)


def test_weights_multiply_and_the_mean_stays(long: TextConditioner) -> None:
    plain, got = context(long, "a red apple"), context(long, "a (red:1.5) [apple]")
    factor = torch.ones(77)
    factor[2], factor[3] = 1.5, 1 / 1.1
    weighed = plain * factor[:, None]
    expected = weighed * (plain.mean() / weighed.mean())
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got.mean(), plain.mean())
    assert not torch.allclose(got[:, 5:], plain[:, 5:])  # the mean is the whole text's: other places pay for it


def test_each_chunk_and_each_row_keeps_its_own_mean(long: TextConditioner) -> None:
    joined = context(long, "(red:1.5) BREAK apple")
    torch.testing.assert_close(joined, torch.cat((context(long, "(red:1.5)"), context(long, "apple")), dim=1))
    with torch.no_grad():
        both = long([Prompt(text="(red:1.5)", style="a1111"), Prompt(text="[apple]", style="a1111")]).context
    assert both is not None
    torch.testing.assert_close(both[1:], context(long, "[apple]"))


def test_text_without_signs_is_the_same_in_both_styles(long: TextConditioner) -> None:
    assert torch.equal(context(long, PROMPT), context(long, PROMPT, style="plain"))
    assert not torch.equal(context(long, "(red)"), context(long, "(red)", style="plain"))


def test_weights_of_a_tower_in_bfloat16(long: TextConditioner) -> None:
    low = TextConditioner(TextConfig(clip=LONG))
    low.load_state_dict(long.state_dict())
    got = context(low.bfloat16(), "(red:1.5) apple")
    assert got.dtype == torch.bfloat16
    assert (got.float() - context(long, "(red:1.5) apple")).abs().max() < 0.1


# Embeddings that the caller made


def test_embeddings_of_a_text_give_its_conditioning(whole: TextConditioner) -> None:
    with torch.no_grad():
        tokens = whole.tokens(["a red apple", ""])
        got = whole.encode_embeddings(whole.encoder.token_embedding(tokens.ids), tokens.end)
        expected = whole.encode(tokens)
    assert got.context is not None
    assert expected.context is not None
    assert torch.equal(got.context, expected.context)


@pytest.mark.parametrize(
    ("shape", "end", "words"),
    [
        ((12, 16), [3], r"embeddings \(12, 16\): expected \(batch, up to 12, 16\)"),
        ((1, 13, 16), [3], r"embeddings \(1, 13, 16\)"),
        ((1, 12, 8), [3], r"embeddings \(1, 12, 8\)"),
        ((1, 12, 16), [12], r"end \[12\]: expected one place below 12"),
        ((2, 12, 16), [3], r"end \[3\]"),
    ],
)
def test_embeddings_of_another_shape_are_refused(
    whole: TextConditioner, shape: tuple[int, ...], end: list[int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        whole.encode_embeddings(torch.zeros(shape), torch.tensor(end))
