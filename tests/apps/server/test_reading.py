"""How a prompt is read, told while it is typed."""

import threading
import time

import pytest
from proofs import Server, ended, submit

import tintype
from tintype.apps.server.reading import reads_of
from tintype.conditioning.bert import BertConfig
from tintype.conditioning.prompt import Prompt
from tintype.conditioning.text import TextConfig
from tintype.conditioning.towers import TextTowersConfig
from tintype.families import latent_diffusion, stable_diffusion


def test_the_open_model_tells_its_tokens_and_what_it_never_saw(stocked: Server) -> None:
    with stocked.client() as client:
        told = client.post("/v1/tokens", json={"prompt": "a red zeppelin (apple:1.3)"}).json()
        assert told["by"] == "default"
        [phase] = told["phases"]
        [tower] = phase["towers"]
        assert tower["unknown"] == ["zeppelin"]
        assert tower["room"] == 30
        [chunk] = tower["chunks"]
        assert [(one["word"], one["weight"]) for one in chunk] == [("a", 1.0), ("red", 1.0), ("apple", 1.3)]


def test_a_model_that_reads_no_prompts_or_is_not_known_is_read_with_clips_vocabulary(stocked: Server) -> None:
    with stocked.client() as client:
        for model, known in (("upscaler", True), ("other.safetensors", False)):
            told = client.post("/v1/tokens", json={"prompt": "zeppelin, " * 60, "model": model}).json()
            assert (told["by"], told["known"]) == (None, known)
            [tower] = told["phases"][0]["towers"]
            assert tower["unknown"] == []
            assert len(tower["chunks"]) > 1
            assert all(len(chunk) <= 75 for chunk in tower["chunks"])


def test_the_answer_does_not_depend_on_which_model_is_open(stocked: Server) -> None:
    asked = [{"prompt": "a red zeppelin [frog:panda:0.5]", "model": name} for name in ("default", "mine", "upscaler")]
    with stocked.client() as client:
        before = [client.post("/v1/tokens", json=one).json() for one in asked]
        assert ended(client, submit(client, model="mine"))["state"] == "done"
        assert [client.post("/v1/tokens", json=one).json() for one in asked] == before
        assert before[0]["phases"] == before[1]["phases"]
        assert client.post("/v1/tokens", json={"prompt": "a", "model": ""}).json()["by"] == "default"


def test_a_model_that_is_not_here_is_told(stocked: Server) -> None:
    with stocked.client() as client:
        for name in ("no such", "../default", "/etc/passwd"):
            answer = client.post("/v1/tokens", json={"prompt": "a", "model": name})
            assert answer.status_code == 404
            assert answer.json()["error"]["param"] == "model"


def test_texts_of_a_schedule_are_told_apart_and_are_not_without_end(stocked: Server) -> None:
    own = tintype.load("default", device="cpu").config.steps
    with stocked.client() as client:
        told = client.post("/v1/tokens", json={"prompt": "a [frog:panda:0.5]"}).json()
        assert [(one["text"], one["until"]) for one in told["phases"]] == [("a frog", own // 2), ("a panda", own)]
        assert told["steps"] == own
        many = client.post("/v1/tokens", json={"prompt": "[frog|panda]", "steps": 1000}).json()
        assert len(many["phases"]) == 20


@pytest.mark.parametrize(
    "prompt",
    ["[a|b]" * 3_900, "[a|b]" * 64 + "()" * 9_000, "[a|b]" + "(a" * 9_000, "[a:b:0.5]" * 2_000,
     "a" + " " * 19_000 + "b", "[a:b:" + "1" * 19_000 + "x]"],
    ids=["alternations", "brackets", "depth", "schedules", "blanks", "digits"],
)  # fmt: skip
def test_what_would_take_long_to_read_is_refused(stocked: Server, prompt: str) -> None:
    with stocked.client() as client:
        began = time.monotonic()
        answer = client.post("/v1/tokens", json={"prompt": prompt, "steps": 1000})
        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == "prompt"
        assert time.monotonic() - began < 1


def test_a_crowd_of_slow_prompts_leaves_room_for_others(stocked: Server) -> None:
    prompt = "[a|b]" * 60 + "!;?" * 6_000

    def ask() -> None:
        with stocked.client() as client:
            answer = client.post("/v1/tokens", json={"prompt": prompt, "steps": 700, "model": "upscaler"})
            assert answer.status_code == 200

    crowd = [threading.Thread(target=ask) for _ in range(41)]
    for one in crowd:
        one.start()
    with stocked.client() as client:
        took: list[float] = []
        while any(one.is_alive() for one in crowd):
            began = time.monotonic()
            assert client.get("/v1/jobs").status_code == 200  # needs a thread
            took.append(time.monotonic() - began)
            time.sleep(0.01)
    assert sorted(took)[len(took) // 2] < 0.5
    assert max(took) < 2


def test_prompts_are_read_as_the_models_of_all_families_do() -> None:
    for family in (*stable_diffusion.FAMILIES, *latent_diffusion.FAMILIES):
        config = family.config.conditioner
        if config is None or isinstance(config, BertConfig):  # whose vocabulary is not ours to bring
            continue
        reads, of_clip = reads_of(config)
        assert of_clip
        assert (reads is not None) == isinstance(config, TextConfig | TextTowersConfig)
        if reads is not None:
            found = reads(Prompt(text="a red apple, (a pear:1.2)", style="a1111"))
            assert len(found) == (len(config.towers) if isinstance(config, TextTowersConfig) else 1)
            assert [token.word for token in found[0].chunks[0]][:3] == ["a", "red", "apple"]


def test_a_long_word_is_not_told_again_with_each_of_its_tokens(stocked: Server) -> None:
    with stocked.client() as client:
        for model in ("default", "upscaler"):
            answer = client.post("/v1/tokens", json={"prompt": "!;?" * 6_000, "model": model})
            assert answer.status_code == 200
            assert len(answer.content) < 5_000_000


@pytest.mark.parametrize(
    ("body", "field"),
    [({"prompt": 3}, "prompt"), ({}, "prompt"), ({"prompt": "a" * 20_001}, "prompt"),
     ({"prompt": "a", "steps": 0}, "steps"), ({"prompt": "a", "prompt_style": "b"}, "prompt_style"),
     ({"prompt": "a", "else": 1}, "else")],
    ids=["number", "none", "long", "steps", "style", "else"],
)  # fmt: skip
def test_what_is_no_prompt_is_refused_by_name(stocked: Server, body: dict[str, object], field: str) -> None:
    with stocked.client() as client:
        answer = client.post("/v1/tokens", json=body)
        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == field
