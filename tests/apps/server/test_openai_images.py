"""OpenAI's images API, asked by OpenAI's own client."""

import base64
import io
import shutil
import subprocess
import sys
import threading
from importlib import resources
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from running import running

import tintype
from tintype.apps.server.openai_fields import Own

QUICK: dict[str, object] = {"seed": 7, "steps": 3}
PROMPT = "a red apple"


@pytest.fixture(scope="module")
def client(clients_server: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{clients_server}/v1", api_key="none", max_retries=0)


def content(told: openai.types.Image) -> bytes:
    assert told.b64_json is not None
    return base64.b64decode(told.b64_json)


def picture(told: openai.types.Image) -> Image.Image:
    return Image.open(io.BytesIO(content(told)))


def png(image: Image.Image) -> bytes:
    held = io.BytesIO()
    image.save(held, format="PNG")
    return held.getvalue()


def scene(size: int) -> Image.Image:
    """A picture no pixel of which is like its neighbours."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))


def mask_of(size: int, *, clear: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("RGBA", (size, size), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), clear)
    return mask


def test_picture_is_the_one_that_python_makes(client: openai.OpenAI, tmp_path: Path) -> None:
    told = client.images.generate(prompt=PROMPT, extra_body=QUICK)
    [made] = tintype.generate(tintype.load("default", device="cpu"), tintype.Request(prompt=PROMPT, seed=7, steps=3))
    tintype.save(made, tmp_path / "made.png")
    assert told.data is not None
    assert content(told.data[0]) == (tmp_path / "made.png").read_bytes()
    assert told.size == "64x64"
    assert told.output_format == "png"


def test_several_have_seeds_that_follow_one_another(client: openai.OpenAI) -> None:
    told = client.images.generate(prompt=PROMPT, n=3, extra_body=QUICK)
    assert told.data is not None
    seeds = [picture(one).info["parameters"].split("Seed: ")[1].split(",")[0] for one in told.data]
    assert seeds == ["7", "8", "9"]


def test_other_names_of_the_knobs_mean_the_same(client: openai.OpenAI) -> None:
    one = client.images.generate(prompt=PROMPT, extra_body=QUICK | {"cfg_scale": 2, "sampler": "Euler"})
    other = client.images.generate(
        prompt=PROMPT, extra_body={"seed": 7, "num_inference_steps": 3, "guidance_scale": 2.0, "sampler": "Euler"}
    )
    plain = client.images.generate(prompt=PROMPT, extra_body=QUICK)
    assert one.data is not None
    assert other.data is not None
    assert plain.data is not None
    assert content(one.data[0]) == content(other.data[0]) != content(plain.data[0])


@pytest.mark.parametrize(
    ("asked", "drawn"), [("1024x1024", "64x64"), ("1536x1024", "80x56"), ("96x64", "96x64"), ("70x70", "72x72")]
)
def test_size_is_the_asked_one_whatever_the_model_draws(client: openai.OpenAI, asked: str, drawn: str) -> None:
    told = client.images.generate(prompt=PROMPT, size=asked, extra_body=QUICK)  # pyright: ignore
    assert told.data is not None
    made = picture(told.data[0])
    assert f"{made.width}x{made.height}" == told.size == asked
    assert f"Size: {drawn}" in made.info["parameters"]


def test_width_and_height_are_drawn_as_they_are(client: openai.OpenAI) -> None:
    told = client.images.generate(prompt=PROMPT, size="1024x1024", extra_body=QUICK | {"width": 128, "height": 96})
    assert told.data is not None
    assert picture(told.data[0]).size == (128, 96)


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_format_is_the_asked_one(client: openai.OpenAI, kind: str) -> None:
    told, small = (
        client.images.generate(
            prompt=PROMPT,
            output_format=kind,  # pyright: ignore
            output_compression=quality,
            extra_body=QUICK,
        )
        for quality in (95, 5)
    )
    assert told.data is not None
    assert small.data is not None
    assert picture(told.data[0]).format == kind.upper()
    assert told.output_format == kind
    assert len(content(small.data[0])) < len(content(told.data[0]))


@pytest.mark.parametrize("asked", [{}, {"size": "256x256"}, {"output_format": "webp"}])
def test_address_leads_to_the_same_picture(client: openai.OpenAI, asked: dict[str, str]) -> None:
    as_url = client.images.generate(prompt=PROMPT, response_format="url", extra_body=QUICK | asked)
    as_text = client.images.generate(prompt=PROMPT, response_format="b64_json", extra_body=QUICK | asked)
    assert as_url.data is not None
    assert as_text.data is not None
    assert as_url.data[0].url is not None
    assert httpx.get(as_url.data[0].url).content == content(as_text.data[0])


def test_what_others_send_is_taken(client: openai.OpenAI) -> None:
    told = client.images.generate(
        prompt=PROMPT, model="gpt-image-1", size="auto", quality="auto", background="auto", moderation="auto",
        style="vivid", user="someone", n=1, response_format="b64_json", extra_body=QUICK | {"nobody": "knows"},
    )  # fmt: skip
    assert told.data is not None
    assert picture(told.data[0]).size == (64, 64)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", "large"),
        ("size", "4x4"),
        ("size", "100000x64"),
        ("n", 0),
        ("n", 11),
        ("output_format", "gif"),
        ("output_compression", 101),
        ("partial_images", 4),
        ("prompt", " "),
        ("steps", 0),
        ("steps", "many"),
        ("steps", 100_000),
        ("seed", -2),
        ("cfg_scale", -1),
        ("sampler", "no such"),
        ("width", 65),
        ("strength", 0.5),  # of tasks that begin with a picture
    ],
)
def test_wrong_field_is_named(client: openai.OpenAI, field: str, value: object) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**({"prompt": PROMPT} | {"extra_body": QUICK | {field: value}}))  # pyright: ignore
    assert caught.value.param == field
    assert field in caught.value.message


def test_edit_leaves_what_is_opaque_in_the_mask(client: openai.OpenAI) -> None:
    before, box = scene(64), (16, 16, 48, 48)
    told = client.images.edit(
        image=("a.png", png(before)), mask=("m.png", png(mask_of(64, clear=box))), prompt=PROMPT, extra_body=QUICK
    )
    assert told.data is not None
    after = np.asarray(picture(told.data[0]))
    outside = np.ones((64, 64), dtype=bool)
    outside[16:48, 16:48] = False
    assert (after[outside] == np.asarray(before)[outside]).all()
    assert (after[~outside] != np.asarray(before)[~outside]).any(axis=-1).mean() > 0.9


def test_large_edit_keeps_every_pixel_outside(client: openai.OpenAI) -> None:
    before, box = scene(300), (100, 100, 180, 180)
    told = client.images.edit(
        image=("a.png", png(before)), mask=("m.png", png(mask_of(300, clear=box))), prompt=PROMPT, extra_body=QUICK
    )
    assert told.data is not None
    after = np.array(picture(told.data[0]))
    assert after.shape == (300, 300, 3)
    assert (after[100:180, 100:180] != np.asarray(before)[100:180, 100:180]).any(axis=-1).mean() > 0.9
    after[100:180, 100:180] = np.asarray(before)[100:180, 100:180]
    assert (after == np.asarray(before)).all()


def test_edit_of_one_picture_in_a_list_without_a_mask(client: openai.OpenAI, tmp_path: Path) -> None:
    scene(64).save(tmp_path / "a.png")
    told = client.images.edit(
        image=[("a.png", png(scene(64)))], prompt=PROMPT, size="128x128", n=2, extra_body=QUICK | {"strength": 0.7}
    )
    asked = tintype.Request(
        task="img2img", prompt=PROMPT, image=str(tmp_path / "a.png"), seed=7, steps=3, batch_size=2, strength=0.7
    )
    made = tintype.generate(tintype.load("default", device="cpu"), asked)
    assert told.data is not None
    assert told.size == "128x128"
    for one, expected in zip(told.data, made, strict=True):
        larger = expected.resize((128, 128), Image.Resampling.LANCZOS)
        assert (np.asarray(picture(one)) == np.asarray(larger)).all()


def test_wrong_edits_are_named(client: openai.OpenAI) -> None:
    image = ("a.png", png(scene(64)))
    for field, given in (
        ("image", {"image": [image, image]}),
        ("image", {"image": ("a.png", b"no picture")}),
        ("prompt", {"image": image, "prompt": ""}),
        ("mask", {"image": image, "mask": ("m.png", png(scene(64)))}),
        ("mask", {"image": image, "mask": ("m.png", png(mask_of(32, clear=(0, 0, 9, 9))))}),
        ("mask", {"image": image, "mask": ("m.png", b"no picture")}),
        ("n", {"image": image, "n": 11}),
        ("strength", {"image": image, "extra_body": {"strength": 2}}),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.edit(**({"prompt": PROMPT} | given))  # pyright: ignore
        assert caught.value.param == field, given


def test_variations_are_of_the_picture(client: openai.OpenAI) -> None:
    before = Image.new("RGB", (64, 64), (200, 30, 30))
    told = client.images.create_variation(image=("a.png", png(before)), n=2, size="256x256", extra_body=QUICK)
    assert told.data is not None
    first, second = (np.asarray(picture(one)).astype(int) for one in told.data)
    assert first.shape == second.shape == (256, 256, 3)
    assert (first != second).any()
    assert "Denoising strength: 0.75" in picture(told.data[0]).info["parameters"]


def test_stream_shows_estimates_and_ends_with_the_picture(client: openai.OpenAI) -> None:
    asked = {"prompt": PROMPT, "size": "128x128", "extra_body": {"seed": 7, "steps": 30}}
    events = list(client.images.generate(**asked, stream=True, partial_images=2))  # pyright: ignore
    *partial, last = events
    assert 1 <= len(partial) <= 2
    assert [one.type for one in partial] == ["image_generation.partial_image"] * len(partial)
    assert [one.partial_image_index for one in partial] == list(range(len(partial)))
    assert last.type == "image_generation.completed"
    assert last.usage.total_tokens == 0
    for one in events:
        assert Image.open(io.BytesIO(base64.b64decode(one.b64_json))).size == (128, 128)
        assert one.size == "128x128"
    whole = client.images.generate(**asked)  # pyright: ignore
    assert last.b64_json == whole.data[0].b64_json != partial[0].b64_json


def test_stream_of_an_edit(client: openai.OpenAI) -> None:
    events = list(
        client.images.edit(
            image=("a.png", png(scene(64))), prompt=PROMPT, stream=True, partial_images=0, n=2, extra_body=QUICK
        )
    )
    assert [one.type for one in events] == ["image_edit.completed"] * 2


def test_who_leaves_a_stream_takes_the_job_along(client: openai.OpenAI, clients_server: str) -> None:
    stream = client.images.generate(prompt=PROMPT, stream=True, partial_images=1, extra_body={"steps": 150, "n": 8})
    next(iter(stream))
    stream.close()
    job = httpx.get(f"{clients_server}/v1/jobs", params={"count": 1}).json()[0]
    for event in httpx.get(f"{clients_server}/v1/jobs/{job['id']}/events", timeout=60).text.split("\n\n"):
        if event.startswith("event: job"):
            job = event
    assert '"state":"cancelled"' in job


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert "default" in [one.id for one in client.models.list()]
    assert client.models.retrieve("default").object == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("folder/none")
    assert caught.value.code == "model_not_found"


def test_size_is_kept_of_a_model_that_was_never_open(tmp_path: Path) -> None:
    shutil.copytree(str(resources.files("tintype.weights") / "default"), tmp_path / "models" / "of mine" / "apple")
    with running(tmp_path / "data", "--models", str(tmp_path / "models")) as address:
        asking = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        assert asking.models.retrieve("of mine/apple").id == "of mine/apple"
        told = asking.images.generate(prompt=PROMPT, model="of mine/apple", size="256x256", extra_body=QUICK)
        assert told.data is not None
        assert picture(told.data[0]).size == (256, 256)
        assert "Size: 64x64" in picture(told.data[0]).info["parameters"]
        assert "Model: apple" in picture(told.data[0]).info["parameters"]
        assert len(httpx.get(f"{address}/v1/pictures").json()) == 1  # the one that opened it is gone


def test_nothing_of_the_server_loads_torch() -> None:
    told = "import sys, tintype.apps.server.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == 0


def test_full_queue_is_a_rate_limit_that_the_client_waits_for(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--queue", "1", "--batch", "1", "--token", "ann=a secret of hers") as address:
        stranger = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            stranger.images.generate(prompt=PROMPT, extra_body=QUICK)
        impatient = stranger.with_options(api_key="a secret of hers")
        outcomes: list[object] = []

        def ask() -> None:
            try:
                outcomes.append(impatient.images.generate(prompt=PROMPT, extra_body={"steps": 40}))
            except openai.RateLimitError as error:
                outcomes.append(error)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [one for one in outcomes if isinstance(one, openai.RateLimitError)]
        assert 1 <= len(refused) <= 5
        assert int(refused[0].response.headers["retry-after"]) >= 1
        patient = impatient.with_options(max_retries=9)
        assert patient.images.generate(prompt=PROMPT, extra_body=QUICK).data


@pytest.mark.parametrize("asked", [(1024, 1024), (1536, 1024), (2048, 8), (8, 8), (90, 90), (91, 91)])
def test_drawn_size_is_near_the_models_own_and_of_the_shape(asked: tuple[int, int]) -> None:
    width, height = Own(size=64, cell=8).drawn(asked)
    assert width % 8 == height % 8 == 0
    if asked[0] * asked[1] > 2 * 64**2:
        assert width * height <= 2 * 64**2
    if min(asked) > 8:
        assert abs(width / height - asked[0] / asked[1]) < 0.2
