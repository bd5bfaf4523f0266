"""A1111's interface, asked by webuiapi and with what other programs send."""

import base64
import io
import json
import shutil
import threading
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import httpx
import numpy as np
import pytest
import webuiapi
from PIL import Image
from running import running

import tintype
from tintype.apps.server.sdapi_extras import parameters
from tintype.weights import embedded

PICTURE = webuiapi.webuiapi.b64_img(Image.new("RGB", (64, 64), "white"))
SMALL = {"prompt": "a red apple", "seed": 7, "steps": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def client(clients_server: str) -> webuiapi.WebUIApi:
    return client_of(clients_server)


def client_of(address: str, **given: str) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(baseurl=f"{address}/sdapi/v1", **given)


def scene(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def made(address: str, path: str = "txt2img", **given: object) -> httpx.Response:
    return httpx.post(f"{address}/sdapi/v1/{path}", json=given, timeout=300)


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 300  # a machine that does other things
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


# Text to image


def test_picture_is_the_one_that_python_makes(client: webuiapi.WebUIApi, clients_server: str, tmp_path: Path) -> None:
    asked = tintype.Request(
        prompt="a red apple", seed=7, steps=3, cfg_scale=7.0, width=64, height=64, sampler="Euler a", eta=1.0
    )
    [expected] = tintype.generate(tintype.load("default", device="cpu"), asked)
    tintype.save(expected, tmp_path / "made.png")
    told = client.txt2img(**SMALL)
    assert base64.b64decode(told.json["images"][0]) == (tmp_path / "made.png").read_bytes()
    assert told.info["infotexts"] == [expected.info["parameters"]]
    assert told.parameters["steps"] == 3


def test_info_tells_what_was_done(client: webuiapi.WebUIApi) -> None:
    told = client.txt2img(**SMALL, negative_prompt="green", batch_size=2, n_iter=2, sampler_name="DPM++ 2M Karras")
    info = told.info
    assert info["all_seeds"] == [7, 8, 9, 10]
    assert [text.split("Seed: ")[1].split(",")[0] for text in info["infotexts"]] == ["7", "8", "9", "10"]
    assert len(told.images) == 4
    assert "Schedule type: Karras" in info["infotexts"][0]
    expected = {
        "prompt": "a red apple", "negative_prompt": "green", "seed": 7, "width": 64, "height": 64, "steps": 3,
        "sampler_name": "DPM++ 2M", "cfg_scale": 7, "batch_size": 2, "subseed_strength": 0, "clip_skip": 1,
        "sd_model_name": "default", "index_of_first_image": 0, "styles": [], "all_prompts": ["a red apple"] * 4,
    }  # fmt: skip
    assert {name: info[name] for name in expected} == expected
    assert {"all_subseeds", "subseed", "sd_model_hash", "denoising_strength", "extra_generation_params"} < set(info)
    assert {"job_timestamp", "version", "sd_vae_name", "restore_faces", "all_negative_prompts"} < set(info)


def test_iterations_are_the_pictures_of_their_seeds(client: webuiapi.WebUIApi) -> None:
    told = client.txt2img(**SMALL, n_iter=2)
    other = client.txt2img(**SMALL | {"seed": 8})
    assert told.json["images"][1] == other.json["images"][0] != told.json["images"][0]


def test_size_is_the_models_own_where_none_is_sent(clients_server: str) -> None:
    told = made(clients_server, prompt="a red apple", steps=3).json()
    assert Image.open(io.BytesIO(base64.b64decode(told["images"][0]))).size == (64, 64)
    assert json.loads(told["info"])["width"] == 64
    assert json.loads(told["info"])["seed"] >= 0


def test_variations_are_of_one_seed(client: webuiapi.WebUIApi) -> None:
    told = client.txt2img(**SMALL, subseed=20, subseed_strength=0.5, n_iter=2)
    assert told.info["all_seeds"] == [7, 7]
    assert told.info["all_subseeds"] == [20, 21]
    assert told.json["images"][0] != told.json["images"][1]
    assert "Variation seed: 21, Variation seed strength: 0.5" in told.info["infotexts"][1]


def test_second_pass_is_larger(client: webuiapi.WebUIApi) -> None:
    told = client.txt2img(**SMALL, enable_hr=True, hr_scale=1.5, denoising_strength=0.5, hr_second_pass_steps=4)
    assert told.image.size == (96, 96)
    assert "Denoising strength: 0.5, Hires upscale: 1.5, Hires steps: 4" in told.info["infotexts"][0]
    sized = client.txt2img(**SMALL, enable_hr=True, hr_resize_x=96, hr_resize_y=96, denoising_strength=0.5)
    assert sized.image.size == (96, 96)


def test_tiling_and_clip_skip_arrive(client: webuiapi.WebUIApi) -> None:
    told = client.txt2img(**SMALL, tiling=True, override_settings={"CLIP_stop_at_last_layers": 2})
    assert "Tiling: True" in told.info["infotexts"][0]
    assert "Clip skip: 2" in told.info["infotexts"][0]


@pytest.mark.parametrize(
    ("sent", "scheduler", "shown"),
    [
        ("Euler", "automatic", "Sampler: Euler, Schedule type: Uniform"),
        ("Euler a", "karras", "Sampler: Euler a, Schedule type: Karras"),
        ("k_dpmpp_2m_ka", "automatic", "Sampler: DPM++ 2M, Schedule type: Karras"),
        ("DPM++ 2M Karras", "exponential", "Sampler: DPM++ 2M, Schedule type: Karras"),
        ("DDIM", "SGM Uniform", "Sampler: DDIM, Schedule type: SGM Uniform"),
        ("DPM++ SDE", "kl_optimal", "Sampler: DPM++ SDE, Schedule type: KL Optimal"),
        ("DDIM", "ddim", "Sampler: DDIM, Schedule type: DDIM"),
    ],
)
def test_samplers_mean_a1111s(client: webuiapi.WebUIApi, sent: str, scheduler: str, shown: str) -> None:
    told = client.txt2img(**SMALL, sampler_name=sent, scheduler=scheduler)
    assert shown in told.info["infotexts"][0]


def test_every_listed_sampler_and_scheduler_draws(client: webuiapi.WebUIApi, clients_server: str) -> None:
    names, tiny = client.util_get_sampler_names(), SMALL | {"steps": 2, "width": 32, "height": 32}
    assert {"Euler a", "DPM++ 2M", "DDIM", "UniPC"} < set(names)
    for name in names:
        told = made(clients_server, **tiny, sampler_name=name, eta=1.0, s_tmax=0)
        assert told.status_code == 200, (name, told.text)
    for name in client.util_get_scheduler_names():
        told = made(clients_server, **tiny, sampler_name="Euler", scheduler=name)
        found = name == "align_your_steps"  # for Stable Diffusion's noise levels, which are not the embedded model's
        assert told.status_code == (422 if found else 200), (name, told.text)


# Image to image


def test_picture_from_a_picture(client: webuiapi.WebUIApi, tmp_path: Path) -> None:
    before = scene(64, 64)
    before.save(tmp_path / "a.png")
    asked = tintype.Request(
        task="img2img", prompt="a red apple", image=str(tmp_path / "a.png"), seed=7, steps=3, strength=0.7,
        cfg_scale=7.0, sampler="Euler a", eta=1.0,
    )  # fmt: skip
    [expected] = tintype.generate(tintype.load("default", device="cpu"), asked)
    told = client.img2img(images=[before], **SMALL, denoising_strength=0.7)
    assert (np.asarray(told.image) == np.asarray(expected)).all()
    assert told.info["denoising_strength"] == 0.7
    assert told.parameters["init_images"] is None


def test_init_image_is_taken_bare_and_sent_back_on_request(clients_server: str) -> None:
    held = io.BytesIO()
    scene(64, 64).save(held, format="PNG")
    bare = base64.b64encode(held.getvalue()).decode()
    told = made(clients_server, "img2img", prompt="x", steps=3, init_images=[bare], include_init_images=True)
    assert told.json()["parameters"]["init_images"] == [bare]


@pytest.mark.parametrize(("mode", "name"), [(0, "stretch"), (1, "crop"), (2, "fill")])
def test_resize_modes(client: webuiapi.WebUIApi, mode: int, name: str, tmp_path: Path) -> None:
    before = scene(96, 48)
    before.save(tmp_path / "a.png")
    asked = tintype.Request(
        task="img2img", prompt="a red apple", image=str(tmp_path / "a.png"), seed=7, steps=3, strength=0.4,
        cfg_scale=7.0, sampler="Euler a", eta=1.0, width=64, height=64, resize=name,  # pyright: ignore
    )  # fmt: skip
    [expected] = tintype.generate(tintype.load("default", device="cpu"), asked)
    told = client.img2img(images=[before], **SMALL, denoising_strength=0.4, resize_mode=mode)
    assert (np.asarray(told.image) == np.asarray(expected)).all()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("invert", [0, 1])
@pytest.mark.parametrize("fill", [0, 1, 2, 3])
def test_pixels_outside_the_mask_stay(client: webuiapi.WebUIApi, whole: bool, invert: int, fill: int) -> None:
    before, mask = scene(64, 64), Image.new("L", (64, 64), 255 * invert)
    mask.paste(255 - 255 * invert, (16, 16, 48, 48))
    told = client.img2img(
        images=[before], mask_image=mask, mask_blur=0, inpainting_fill=fill, inpaint_full_res=whole,
        inpaint_full_res_padding=8, inpainting_mask_invert=invert, **SMALL,
    )  # fmt: skip
    inside = np.zeros((64, 64), dtype=bool)
    inside[16:48, 16:48] = True
    after, held = np.asarray(told.image), np.asarray(before)
    assert (after[~inside] == held[~inside]).all()
    assert (after[inside] != held[inside]).any(axis=-1).mean() > 0.9


def test_fills_differ(client: webuiapi.WebUIApi) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    told = [
        client.img2img(images=[scene(64, 64)], mask_image=mask, inpainting_fill=fill, **SMALL).json["images"][0]
        for fill in range(4)
    ]
    assert len(set(told)) == 4


def test_mask_of_another_size_and_with_alpha(client: webuiapi.WebUIApi) -> None:
    before, mask = scene(64, 64), Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    mask.paste((0, 0, 0, 255), (0, 0, 16, 32))
    told = client.img2img(images=[before], mask_image=mask, mask_blur=0, **SMALL)
    assert (np.asarray(told.image)[:, 40:] == np.asarray(before)[:, 40:]).all()
    assert (np.asarray(told.image)[:, :24] != np.asarray(before)[:, :24]).any(axis=-1).mean() > 0.9


# What is refused


@pytest.mark.parametrize(
    ("status", "field", "given"),
    [
        (400, "sampler", {"sampler_name": "no such"}),
        (400, "scheduler", {"scheduler": "no such"}),
        (422, "Script", {"script_name": "x/y/z plot"}),
        (422, "ADetailer", {"alwayson_scripts": {"ADetailer": {"args": []}}}),
        (404, "no such model", {"override_settings": {"sd_model_checkpoint": "no such model"}}),
        (422, "CLIP_stop_at_last_layers", {"override_settings": {"CLIP_stop_at_last_layers": 0}}),
        (422, "steps", {"steps": 100_000}),
        (422, "width", {"width": 65}),
        (422, "width", {"width": 10**6}),
        (422, "height", {"height": "tall"}),
        (422, "batch_size", {"batch_size": 0}),
        (422, "batch_size", {"batch_size": 10_000}),
        (422, "n_iter", {"n_iter": 0}),
        (422, "n_iter", {"n_iter": 10_000}),
        (422, "n_iter", {"n_iter": 5, "batch_size": 4}),
        (422, "seed", {"seed": 2**40}),
        (422, "cfg_scale", {"cfg_scale": -1}),
        (422, "eta", {"sampler_name": "DDIM", "eta": 2}),
        (422, "seed_resize_from_w", {"seed_resize_from_w": 64}),
        (422, "s_churn", {"s_churn": 1}),
        (422, "s_min_uncond", {"s_min_uncond": 0.5}),
        (422, "restore_faces", {"restore_faces": True}),
        (422, "styles", {"styles": ["cinematic"]}),
        (422, "sd_vae", {"override_settings": {"sd_vae": "other.safetensors"}}),
        (422, "eta_noise_seed_delta", {"override_settings": {"eta_noise_seed_delta": 31337}}),
        (422, "hypernet", {"prompt": "an apple <hypernet:style:1>"}),
        (422, "hr_upscaler", {"enable_hr": True, "hr_upscaler": "LDSR"}),
        (422, "hr_prompt", {"enable_hr": True, "hr_prompt": "another"}),
        (422, "hr_scale", {"enable_hr": True, "hr_scale": 1}),
        (422, "subseed_strength", {"subseed_strength": 2}),
        (422, "denoising_strength", {"enable_hr": True, "denoising_strength": 2}),
    ],
)  # fmt: skip
def test_refusal_names_what_is_wrong(clients_server: str, status: int, field: str, given: dict[str, object]) -> None:
    told = made(clients_server, **SMALL | given)
    assert told.status_code == status, told.text
    assert field in str(told.json()["detail"])


@pytest.mark.parametrize(
    ("status", "field", "given"),
    [
        (404, "Init image", {}),
        (422, "init_images", {"init_images": ["no base64!"]}),
        (422, "init_images", {"init_images": [base64.b64encode(b"no picture").decode()]}),
        (422, "init_images", {"init_images": ["http://127.0.0.1/a.png"]}),
        (422, "init_images", {"init_images": ["/etc/passwd"]}),
        (422, "resize_mode", {"resize_mode": 3, "init_images": ["x"]}),
        (422, "mask", {"mask": "no base64!"}),
        (422, "denoising_strength", {"init_images": [PICTURE], "denoising_strength": 2}),
        (422, "mask_blur", {"init_images": [PICTURE], "mask": PICTURE, "mask_blur": -1}),
        (422, "inpaint_full_res_padding", {"init_images": [PICTURE], "mask": PICTURE, "inpaint_full_res_padding": -1}),
    ],
)
def test_bad_pictures_are_refused(clients_server: str, status: int, field: str, given: dict[str, object]) -> None:
    told = made(clients_server, "img2img", **SMALL | given)
    assert told.status_code == status, told.text
    assert field in str(told.json()["detail"])


# Upscaling, and what a picture tells


def test_upscalers_of_pixels(client: webuiapi.WebUIApi) -> None:
    before = scene(20, 10)
    for name, method in (("Lanczos", Image.Resampling.LANCZOS), ("Nearest", Image.Resampling.NEAREST)):
        told = client.extra_single_image(before, upscaler_1=name, upscaling_resize=3)
        assert (np.asarray(told.image) == np.asarray(before.resize((60, 30), method))).all()
        assert name in told.info
    both = client.extra_single_image(
        before, upscaler_1="Lanczos", upscaler_2="Nearest", extras_upscaler_2_visibility=1, upscaling_resize=3
    )
    assert (np.asarray(both.image) == np.asarray(before.resize((60, 30), Image.Resampling.NEAREST))).all()
    assert (np.asarray(client.extra_single_image(before).image) == np.asarray(before)).all()


def test_upscaling_to_a_size(client: webuiapi.WebUIApi) -> None:
    asked = {"resize_mode": 1, "upscaling_resize_w": 40, "upscaling_resize_h": 40, "upscaler_1": "Lanczos"}
    assert client.extra_single_image(scene(20, 10), **asked).image.size == (40, 40)
    assert client.extra_single_image(scene(20, 10), **asked, upscaling_crop=False).image.size == (80, 40)


def test_upscaling_of_several(client: webuiapi.WebUIApi) -> None:
    told = client.extra_batch_images([scene(8, 8), scene(4, 4)], upscaler_1="Nearest", upscaling_resize=2)
    assert [one.size for one in told.images] == [(16, 16), (8, 8)]


@pytest.mark.parametrize("given", [{"upscaler_1": "LDSR"}, {"gfpgan_visibility": 1}, {"upscaling_resize": 1e9}])
def test_absent_upscalers_are_refused(client: webuiapi.WebUIApi, given: dict[str, object]) -> None:
    with pytest.raises(RuntimeError, match="422"):
        client.extra_single_image(scene(8, 8), **given)


def test_our_upscaler_is_offered_where_its_model_is(client: webuiapi.WebUIApi, clients_server: str) -> None:
    there = "upscaler" in [one["title"] for one in client.get_sd_models()]
    assert ("tintype x4" in [one["name"] for one in client.get_upscalers()]) == there
    if there:
        assert client.extra_single_image(scene(16, 16), upscaler_1="tintype x4", upscaling_resize=4).image.width == 64


def test_png_info_is_what_was_asked(client: webuiapi.WebUIApi) -> None:
    drawn = client.txt2img(**SMALL, negative_prompt="green, blue", batch_size=2)
    told = client.png_info(drawn.images[1]).json
    assert told["info"] == drawn.info["infotexts"][1]
    expected = {"Prompt": "a red apple", "Negative prompt": "green, blue", "Steps": "3", "Seed": "8", "Size-1": "64"}
    assert {name: told["parameters"][name] for name in expected} == expected
    assert client.png_info(scene(8, 8)).json == {"info": "", "items": {}, "parameters": {}}


def test_png_info_reads_exif(clients_server: str) -> None:
    exif, held = Image.Exif(), io.BytesIO()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "ein Apfel\nSteps: 3, Sampler: Euler, Seed: 1".encode("utf-16-be")
    scene(8, 8).save(held, format="JPEG", exif=exif)
    told = made(clients_server, "png-info", image=base64.b64encode(held.getvalue()).decode()).json()
    assert told["parameters"] == {
        "Prompt": "ein Apfel", "Negative prompt": "", "Steps": "3", "Sampler": "Euler", "Seed": "1",
    }  # fmt: skip


def test_parameters_of_odd_texts() -> None:
    assert parameters("") == {}
    assert parameters("a cat: black, white")["Prompt"] == "a cat: black, white"
    told = parameters('a\nb\nNegative prompt: c\nSteps: 2, Size: 8x16, Model: "x: y, \\"z\\"", Seed: 1')
    assert told["Prompt"] == "a\nb"
    assert told["Negative prompt"] == "c"
    assert told["Model"] == 'x: y, "z"'
    assert (told["Size-1"], told["Size-2"]) == ("8", "16")


def test_nothing_here_describes_pictures(client: webuiapi.WebUIApi) -> None:
    with pytest.raises(RuntimeError, match=r"404.*Model not found"):
        client.interrogate(scene(8, 8))


# Progress, interrupt, options: of who asks


def drawing(client: webuiapi.WebUIApi, **given: object) -> tuple[threading.Thread, list[webuiapi.WebUIApiResult]]:
    done: list[webuiapi.WebUIApiResult] = []
    thread = threading.Thread(target=lambda: done.append(client.txt2img(**SMALL | given)))  # pyright: ignore
    thread.start()
    return thread, done


def test_progress_is_shown_and_interrupt_works_for_the_owner_alone(clients_server: str) -> None:
    ann, bob = (client_of(clients_server, username=name, password="x") for name in ("ann", "bob"))
    thread, done = drawing(client_of(clients_server, username="ann", password="x"), steps=150, batch_size=4, n_iter=3)
    eventually(lambda: ann.get_progress()["state"]["sampling_step"] > 0)
    told = ann.get_progress()
    assert 0 < told["progress"] < 1
    assert told["eta_relative"] > 0
    assert told["state"]["job_count"] == 3
    assert told["state"]["sampling_steps"] == 150
    eventually(lambda: ann.get_progress()["current_image"] is not None)
    shown = Image.open(io.BytesIO(base64.b64decode(ann.get_progress()["current_image"])))
    assert shown.size == (64, 64)

    other = bob.get_progress()
    assert (other["progress"], other["current_image"], other["state"]["job_count"]) == (0, None, 0)
    assert "apple" not in json.dumps(other)
    bob.interrupt()
    bob.skip()
    before = ann.get_progress()["progress"]
    eventually(lambda: ann.get_progress()["progress"] > before + 0.02)  # several steps later it goes on
    assert not ann.get_progress()["state"]["interrupted"]
    assert not ann.get_progress()["state"]["skipped"]
    assert thread.is_alive()

    assert ann.interrupt() == {}
    thread.join(300)
    assert not thread.is_alive()
    assert len(done[0].images) < 12
    assert ann.get_progress()["progress"] == 0
    ann.util_wait_for_ready(check_interval=0.1)


def test_skip_goes_on_with_the_next(clients_server: str) -> None:
    eve = client_of(clients_server, username="eve", password="x")
    thread, done = drawing(client_of(clients_server, username="eve", password="x"), steps=100, batch_size=2, n_iter=2)
    eventually(lambda: eve.get_progress()["state"]["sampling_step"] > 0)
    eve.skip()
    thread.join(300)
    assert done[0].info["all_seeds"] == [9, 10]


def test_who_leaves_takes_the_job_along(clients_server: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{clients_server}/sdapi/v1/txt2img", json=SMALL | {"steps": 150, "batch_size": 8}, timeout=0.5)
    last = f"{clients_server}/v1/jobs?count=1"
    eventually(lambda: httpx.get(last).json()[0]["state"] == "cancelled")


def test_options_are_of_who_sets_them(clients_server: str) -> None:
    ann, bob = (client_of(clients_server, username=name, password="x") for name in ("ann2", "bob2"))
    ann.set_options(ann.get_options() | {"CLIP_stop_at_last_layers": 2})  # all of them, as Open WebUI does
    assert ann.get_options()["CLIP_stop_at_last_layers"] == 2
    assert bob.get_options()["CLIP_stop_at_last_layers"] == 1
    assert "Clip skip: 2" in ann.txt2img(**SMALL).info["infotexts"][0]
    assert "Clip skip" not in bob.txt2img(**SMALL).info["infotexts"][0]


def test_model_is_switched_or_refused(client: webuiapi.WebUIApi, clients_server: str) -> None:
    client.util_set_model("default")
    assert client.util_get_current_model() == "default"
    assert made(clients_server, "options", sd_model_checkpoint="no such").status_code == 404
    assert made(clients_server, "options", sd_model_checkpoint="default [0aef0fbea2]").status_code == 200
    assert made(clients_server, "options", sd_model_checkpoint=["default"]).status_code == 422
    assert made(clients_server, "options", sd_vae="other.safetensors").status_code == 422
    assert made(clients_server, "options", sd_vae="Automatic", eta_noise_seed_delta=0).status_code == 200
    assert (
        made(clients_server, **SMALL, styles=[""], s_min_uncond=0, override_settings={"sd_vae": "None"}).status_code
        == 200
    )
    assert client.util_get_current_model() == "default"


def test_one_owners_model_is_not_anothers(tmp_path: Path) -> None:
    shutil.copytree(str(resources.files("tintype.weights") / "default"), tmp_path / "models" / "of mine" / "apple")
    with running(tmp_path / "data", "--models", str(tmp_path / "models")) as address:
        ann, bob = (client_of(address, username=name, password="x") for name in ("ann", "bob"))
        assert ann.util_get_model_names() == sorted([*embedded(), "of mine/apple"])
        ann.util_set_model("of mine/apple")
        assert ann.util_get_current_model() == "of mine/apple"
        assert bob.util_get_current_model() == "default"
        own, usual = (one.txt2img(**SMALL).info for one in (ann, bob))
        assert own["sd_model_name"] == "of mine/apple"
        assert "Model: apple" in own["infotexts"][0]
        assert "Model: default" in usual["infotexts"][0]
        over = {"sd_model_checkpoint": "of mine/apple"}
        assert "Model: apple" in bob.txt2img(**SMALL, override_settings=over).info["infotexts"][0]
        assert bob.util_get_current_model() == "default"
        bob.txt2img(**SMALL, override_settings=over, override_settings_restore_afterwards=False)
        assert bob.util_get_current_model() == "of mine/apple"


# All that webuiapi calls, and what other programs send


def test_every_list_has_a1111s_shape(client: webuiapi.WebUIApi) -> None:
    shapes: list[tuple[list[dict[str, object]], set[str]]] = [
        (client.get_samplers(), {"name", "aliases", "options"}),
        (client.get_schedulers(), {"name", "label", "aliases", "default_rho", "need_inner_model"}),
        (client.get_upscalers(), {"name", "model_name", "model_path", "model_url", "scale"}),
        (client.get_sd_models(), {"title", "model_name", "hash", "sha256", "filename", "config"}),
        (client.get_latent_upscale_modes(), {"name"}),
    ]
    for told, keys in shapes:
        assert told
        assert all(set(one) == keys for one in told)
    for told in (
        client.get_sd_vae(), client.get_hypernetworks(), client.get_face_restorers(), client.get_realesrgan_models(),
        client.get_prompt_styles(), client.get_loras(),
    ):  # fmt: skip
        assert told == []
    assert client.get_scripts() == {"txt2img": [], "img2img": []}
    assert client.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert client.get_memory()["ram"]["total"] > client.get_memory()["ram"]["free"] > 0
    assert "cuda" in client.get_memory()
    assert client.get_cmd_flags()["api"] is True
    assert client.refresh_checkpoints() is None
    assert client.interrupt() == {}
    assert client.skip() is None
    assert client.util_get_model_names()
    names = [one["name"] for one in client.get_schedulers()]
    assert names[:3] == ["automatic", "uniform", "karras"]
    assert "align_your_steps" in names


def test_what_other_programs_send(clients_server: str) -> None:
    for sent in (
        {"prompt": "a red apple", "batch_size": 1, "width": 64, "height": 64},  # Open WebUI
        {
            "prompt": "a red apple", "negative_prompt": "", "sampler_name": "Euler a", "scheduler": "karras",
            "steps": 3, "cfg_scale": 7, "width": 64, "height": 64, "restore_faces": False, "enable_hr": True,
            "hr_upscaler": "Latent", "hr_scale": 1.5, "hr_additional_modules": [], "denoising_strength": 0.7,
            "hr_second_pass_steps": 0, "seed": -1, "override_settings": {"CLIP_stop_at_last_layers": 1},
            "override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": True, "send_images": True,
            "do_not_save_grid": False, "do_not_save_samples": False,
        },  # SillyTavern
        {
            "prompt": "a red apple", "negative_prompt": "", "cfg_scale": 4.5, "steps": 22, "width": 64, "height": 64,
        },  # LibreChat
    ):  # fmt: skip
        told = made(clients_server, **sent)
        assert told.status_code == 200, told.text
        info = json.loads(told.json()["info"])
        assert info["infotexts"][0].startswith("a red apple\n")
        assert {"seed", "width", "height"} < set(info)
