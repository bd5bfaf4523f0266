"""Back in time: kept steps, what was thought at each, and branches that go on from one."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from proofs import Server, ended, running, submit

import tintype
from tintype.attribution import heat
from tintype.generation import decode, steps
from tintype.tasks.request import Request
from tintype.tasks.task import resolve

SENTENCE = "a red apple on a sky blue background"
ASKED: dict[str, object] = {"prompt": SENTENCE, "seed": 3, "steps": 6, "width": 64, "height": 64, "exact": True}


@pytest.fixture(scope="module")
def kept(client: httpx.Client) -> str:
    id = submit(client, **ASKED, keep_steps=True)
    assert ended(client, id)["state"] == "done"
    return id


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_every_step_shows_what_was_thought(client: httpx.Client, kept: str) -> None:
    model = tintype.load("default", device="cpu")
    walked = list(steps(model, Request(**ASKED)))  # pyright: ignore
    told = client.get(f"/v1/jobs/{kept}/steps").json()
    assert told["steps"] == list(range(6))
    assert told["sigmas"] == pytest.approx([step.sigma for step in walked])
    for number, step in enumerate(walked):
        found = pixels(client.get(f"/v1/jobs/{kept}/steps/{number}").content)
        assert np.abs(found - np.asarray(decode(model, step.denoised)[0])).max() <= 1


def test_words_are_told_where_they_were_heard(client: httpx.Client, kept: str) -> None:
    model = tintype.load("default", device="cpu")
    request = resolve(model, Request(**ASKED))  # pyright: ignore
    step = list(steps(model, request))[2]
    expected = heat(model, request, step.x, step.sigma)
    found = client.get(f"/v1/jobs/{kept}/steps/2/words").json()
    assert found["words"] == list(expected.words) == SENTENCE.split()
    assert np.allclose(found["maps"], expected.maps, atol=1e-3)


def test_of_a_prompt_that_changes_those_words_are_told_that_were_heard(client: httpx.Client) -> None:
    id = submit(client, **ASKED | {"prompt": "a [red apple:blue frog:0.5]"}, keep_steps=True)
    assert ended(client, id)["state"] == "done"
    heard = [client.get(f"/v1/jobs/{id}/steps/{step}/words").json()["words"] for step in range(6)]
    assert heard == [["a", "red", "apple"]] * 3 + [["a", "blue", "frog"]] * 3


def test_each_picture_of_a_job_is_told_apart(client: httpx.Client) -> None:
    model = tintype.load("default", device="cpu")
    request = resolve(model, Request(**ASKED | {"batch_size": 2}))  # pyright: ignore
    step = list(steps(model, request))[4]
    id = submit(client, **ASKED, batch_size=2, keep_steps=True)
    assert ended(client, id)["state"] == "done"
    for place in range(2):
        where = f"/v1/jobs/{id}/steps/4"
        row = slice(place, place + 1)
        expected = heat(model, request, step.x[row], step.sigma)
        found = client.get(f"{where}/words", params={"place": place}).json()
        assert np.allclose(found["maps"], expected.maps, atol=1e-3)
        picture = pixels(client.get(where, params={"place": place}).content)
        assert np.abs(picture - np.asarray(decode(model, step.denoised[row])[0])).max() <= 1
    other = heat(model, request, step.x[:1], step.sigma)
    assert not np.allclose(other.maps, expected.maps, atol=1e-2)  # the bound means something


def test_many_may_look_at_once_while_another_picture_is_drawn(server: Server, client: httpx.Client, kept: str) -> None:
    paths = [f"/v1/jobs/{kept}/steps/{step}{more}" for step in (1, 4) for more in ("", "/words")]
    quiet = [client.get(path).content for path in paths]
    asked = ASKED | {"width": 96, "seed": 8, "steps": 40}
    drawn = submit(client, **asked)
    running(client, drawn)

    def look(path: str) -> bytes:
        with server.client() as other:
            return other.get(path).raise_for_status().content

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(look, paths * 4)) == quiet * 4
    assert ended(client, drawn)["state"] == "done"
    [expected] = tintype.generate(tintype.load("default", device="cpu"), Request(**asked))  # pyright: ignore
    found = pixels(client.get(f"/v1/jobs/{drawn}/pictures/0").content)
    assert np.abs(found - np.asarray(expected)).max() <= 1


def test_a_branch_of_the_same_request_is_the_same_picture(client: httpx.Client, kept: str) -> None:
    id = submit(client, **ASKED, branch=f"{kept}:2")
    told = ended(client, id)
    assert (told["state"], told["branch"]) == ("done", f"{kept}:2")
    assert client.get(f"/v1/jobs/{kept}").json()["branch"] is None
    first, again = (client.get(f"/v1/jobs/{one}/pictures/0").content for one in (kept, id))
    assert np.array_equal(pixels(first), pixels(again))
    texts = [Image.open(io.BytesIO(content)).info for content in (first, again)]
    assert set(texts[0]) == {"parameters", "tintype"}
    assert set(texts[1]) == {"parameters"}  # there is no request that repeats it
    assert f'Branch: "{kept}:2"' in texts[1]["parameters"]


def test_another_prompt_holds_from_the_branch_on(client: httpx.Client, kept: str) -> None:
    other = ASKED | {"prompt": "a frog on a sky blue background"}
    early, late = (submit(client, **other, branch=f"{kept}:{step}", keep_steps=True) for step in (0, 4))
    pictures: list[np.ndarray] = []
    for id in (kept, early, late):
        assert ended(client, id)["state"] == "done"
        pictures.append(pixels(client.get(f"/v1/jobs/{id}/pictures/0").content))
    whole, soon, then = pictures
    assert np.abs(soon - whole).mean() > 2 * np.abs(then - whole).mean() > 0
    assert client.get(f"/v1/jobs/{late}/steps").json()["steps"] == [5]  # those that were its own


def test_jobs_drawn_together_keep_their_own_steps(client: httpx.Client) -> None:
    block = submit(client, prompt="a frog", steps=100, seed=9)
    ids = [submit(client, prompt=SENTENCE, seed=seed, steps=6, keep_steps=True) for seed in (3, 4)]
    assert ended(client, block)["state"] == "done"
    for id in ids:
        assert ended(client, id)["state"] == "done"
        last = pixels(client.get(f"/v1/jobs/{id}/steps/5").content)
        assert np.abs(last - pixels(client.get(f"/v1/jobs/{id}/pictures/0").content)).max() <= 2


def test_what_is_not_there_is_not_shown(server: Server, client: httpx.Client, kept: str) -> None:
    plain = submit(client, **ASKED)
    ended(client, plain)
    for path, sentence in (
        (f"{plain}/steps", "its steps were not kept; ask for the picture again with keep_steps"),
        (f"{kept}/steps/6", "step 6: expected one of those that were kept, 0 to 5"),
        (f"{kept}/steps/1?place=1", "picture 1: job"),
        (f"{kept}/steps/1/words?place=1", "picture 1: job"),
    ):
        answer = client.get(f"/v1/jobs/{path}")
        assert answer.status_code == 404
        assert sentence in answer.json()["error"]["message"]
    for more, sentence in (
        ({"branch": f"{kept}:6"}, "step 6: expected one of those that were kept"),
        ({"branch": f"{kept}:5"}, "after the last step nothing is left; expected an earlier one"),
        ({"branch": f"{plain}:1"}, "its steps were not kept"),
        ({"branch": "0123456789abcdef:1"}, "there is no job '0123456789abcdef' of yours"),
        ({"branch": "../../x:1"}, "branch"),
        ({"keep_steps": True, "hires_scale": 2.0}, "hires_scale: steps of pictures of two sizes are not kept"),
    ):
        answer = client.post("/v1/jobs", json=ASKED | more)
        assert answer.status_code == 422
        assert sentence in answer.json()["error"]["message"]
    with server.client(Authorization="Basic Ym9iOng=") as bob:  # another name, another owner
        assert bob.get(f"/v1/jobs/{kept}/steps").status_code == 404
        assert bob.post("/v1/jobs", json=ASKED | {"branch": f"{kept}:1"}).status_code == 422


@pytest.mark.parametrize("change", [{"steps": 7}, {"scheduler": "karras"}], ids=str)
def test_a_branch_with_other_steps_fails_by_its_sentence(
    client: httpx.Client, kept: str, change: dict[str, object]
) -> None:
    told = ended(client, submit(client, **ASKED | change, branch=f"{kept}:2"))
    assert told["state"] == "failed"
    assert "expected one of the same sampler and steps" in told["error"]


def test_steps_are_forgotten_with_their_job(server: Server, client: httpx.Client) -> None:
    id = submit(client, **ASKED, keep_steps=True)
    ended(client, id)
    assert [path.name for path in Path(server.data).rglob(f"{id}-steps*")]
    assert client.delete(f"/v1/jobs/{id}").status_code == 204
    assert not list(Path(server.data).rglob(f"{id}*"))
