"""The page in a real browser, in front of the real server and the embedded model: what a person does, and what becomes
of it. After each test: no error in the console, nothing that the policy had to stop, no request to another host.
"""

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from small_lora import small_lora

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
try:
    from playwright.sync_api import Browser, BrowserContext, Error, Locator, Page, expect, sync_playwright
except ImportError:
    pytest.skip("the page is tested in a browser: pip install playwright", allow_module_level=True)

PATIENCE = 30_000  # milliseconds: the machine may do other things
PROMPT = "a red apple on a sky blue background"
ROOT = Path(__file__).parents[3]


class Server:
    """`tintype serve` in a process of its own."""

    def __init__(self, data: Path, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.data, self.arguments = data, arguments
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tintype", "serve", "--port", str(self.port), "--data", str(self.data)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([*command, *self.arguments], env=environment, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.address}/readyz") as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server does not start")

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(sign)
            self.process.wait(60)
            self.process = None

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.address}{path}") as answer:
            return json.load(answer)


@contextmanager
def running(data: Path, *arguments: str) -> Iterator[Server]:
    server = Server(data, *arguments)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        try:
            path = str(CHROMIUM) if CHROMIUM.exists() else None
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        except Error as error:
            pytest.skip(f"no browser: neither {CHROMIUM} nor playwright's own ({error})")
        yield browser
        browser.close()


WATCH = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) => window.violations.push(event.violatedDirective));
"""


class Visit:
    """A person's browser, watched."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.contexts: list[BrowserContext] = []
        self.pages: list[Page] = []
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.bodies: list[dict[str, Any]] = []  # of the jobs that were sent

    def open(self, address: str, *, width: int = 1280, height: int = 800, **options: Any) -> Page:
        context = self.browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._sent(request, address))
        self.contexts.append(context)
        self.pages.append(page)
        page.goto(address)
        return page

    def _sent(self, request: Any, address: str) -> None:
        url = request.url
        if not url.startswith(("data:", "blob:")) and not url.startswith(address.partition("#")[0].rstrip("/")):
            self.elsewhere.append(url)
        if request.method == "POST" and url.endswith("/v1/jobs"):
            self.bodies.append(json.loads(request.post_data))

    @property
    def violations(self) -> list[str]:
        return [one for page in self.pages if not page.is_closed() for one in page.evaluate("window.violations")]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    visit = Visit(browser)
    yield visit
    found = (visit.errors, visit.elsewhere, visit.violations)
    for context in visit.contexts:
        context.close()
    assert found == ([], [], [])


@pytest.fixture
def page(visit: Visit, server: Server) -> Page:
    return opened(visit, server)


def opened(visit: Visit, server: Server, fragment: str = "", **options: Any) -> Page:
    page = visit.open(f"{server.address}/{fragment}", **options)
    expect(page.locator("form.form")).to_be_visible(timeout=PATIENCE)
    return page


def choose(page: Page, task: str) -> None:
    page.locator(f"[data-task={task}]").click()


def draw(page: Page) -> None:
    page.locator("form.form button.primary").click()


def sent(page: Page) -> None:
    """Draw, and wait until the server has taken it: the stage may show an earlier picture until then."""
    with page.expect_response(lambda answer: answer.url.endswith("/v1/jobs") and answer.request.method == "POST"):
        draw(page)


def made(page: Page, count: int = 1) -> Locator:
    """The finished pictures on the stage."""
    found = page.locator(".frame.made img")
    expect(found).to_have_count(count, timeout=PATIENCE)
    until(
        page, "[...document.querySelectorAll('.frame.made img')].every((one) => one.complete && one.naturalWidth > 0)"
    )
    return found


def ended(server: Server, count: int = 1) -> list[dict[str, Any]]:
    """The last jobs, when none goes on."""
    for _ in range(600):
        jobs = server.ask("/v1/jobs")
        if all(job["state"] not in ("queued", "running") for job in jobs):
            return jobs[:count]
        time.sleep(0.1)
    raise AssertionError("jobs go on")


def png(colour: str = "mintcream", size: tuple[int, int] = (64, 64), **texts: str) -> bytes:
    told = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        told.add_text(key, text)
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "PNG", pnginfo=told)
    return content.getvalue()


def give(page: Page, field: str, content: bytes, name: str = "given.png") -> None:
    """Choose a file, as with the browser's own dialog."""
    with page.expect_file_chooser() as chooser:
        page.locator(f"[data-field={field}] button").first.click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def drop(page: Page, target: str, content: bytes, name: str = "dropped.png", kind: str = "image/png") -> None:
    transfer = page.evaluate_handle(
        """([text, name, type]) => {
            const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type}));
            return transfer;
        }""",
        [base64.b64encode(content).decode(), name, kind],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event(target, event, {"dataTransfer": transfer})


def picture_in(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2])))


def pull(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=8)
    page.mouse.up()


def within(locator: Locator) -> Callable[[float, float], tuple[float, float]]:
    """A point of an element, by parts of its sides."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    assert box is not None
    return lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])


def until(page: Page, condition: str) -> None:
    """As playwright's `wait_for_function`, which needs `eval`, which the policy forbids."""
    ends = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < ends, condition
        time.sleep(0.05)


def until_true(condition: Callable[[], bool], page: Page) -> None:
    ends = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < ends
        page.wait_for_timeout(50)


def value(page: Page, name: str) -> str:
    return page.locator(f"#field-{name}").input_value()


# The form


def test_every_field_of_every_task_has_a_control(page: Page, server: Server):
    edited = {("inpaint", "image"), ("inpaint", "mask"), ("outpaint", "image"), ("layout2img", "boxes")}
    tasks = server.ask("/v1/capabilities")["tasks"]
    for task, told in tasks.items():
        page.evaluate("(task) => { location.hash = `#task=${task}`; }", task)  # also those that no model here can do
        expect(page.locator(f"[data-task={task}]")).to_have_attribute("aria-current", "true")
        for name, field in told["fields"].items():
            if (task, name) in edited:
                continue
            if field["kind"] == "loras":  # there are none on this server
                expect(page.locator(".loras")).to_have_count(0)
                continue
            where = f"[data-field={name}]" if field["kind"] == "picture" else f"#field-{name}"
            expect(page.locator(where), f"{task} {name}").to_have_count(1)
            if field["kind"] != "picture":
                expect(page.locator(f"#help-{name}")).to_have_text(field["help"])
    assert len(tasks) >= 8


def test_a_field_that_the_page_never_heard_of_is_there(visit: Visit, server: Server):
    def answer(route: Any) -> None:
        told = server.ask("/v1/capabilities")
        told["tasks"]["txt2img"]["fields"]["sparkle"] = {
            "kind": "integer", "help": "how much it sparkles", "default": 3, "least": 0, "most": 9,
        }  # fmt: skip
        told["tasks"]["song2img"] = {"help": "a picture of a song", "model": "default", "fields": {}}
        route.fulfill(json=told)

    page = opened(visit, server)
    page.route("**/v1/capabilities", answer)
    page.reload()
    page.get_by_text("More", exact=True).click()
    expect(page.locator("#field-sparkle")).to_have_attribute("placeholder", "3")
    expect(page.locator("[data-task=song2img]")).to_be_visible()


@pytest.fixture(scope="module")
def with_loras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two LoRAs for the embedded model."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "loras").mkdir()
    for seed, name in enumerate(("style", "other")):
        save_file(small_lora(seed), folder / "loras" / f"{name}.safetensors")
    with running(tmp_path_factory.mktemp("data"), "--models", str(folder)) as server:
        yield server


def test_loras_are_chosen_weighed_and_found_again(visit: Visit, with_loras: Server):
    page = opened(visit, with_loras, "#task=txt2img&prompt=a+frog&steps=4&seed=3")
    draw(page)
    made(page)
    page.select_option("#field-lora", "style")
    page.select_option("#field-lora", "other")
    expect(page.locator("#field-lora")).to_have_count(0)  # no other is there
    page.get_by_label("Strength of style", exact=True).fill("-")
    page.get_by_label("Strength of style", exact=True).fill("-0.5")
    page.get_by_role("button", name="Remove other").click()
    sent(page)
    with_lora, without = ended(with_loras, 2)
    assert visit.bodies[-1]["lora"] == ["style:-0.5"]
    assert "lora" not in visit.bodies[-2]
    contents = [urllib.request.urlopen(with_loras.address + job["pictures"][0]).read() for job in (with_lora, without)]
    pixels = [Image.open(io.BytesIO(content)).tobytes() for content in contents]
    assert pixels[0] != pixels[1]

    until(page, "location.hash.includes('lora=style%3A-0.5')")
    other = opened(visit, with_loras, page.evaluate("location.hash"))
    expect(other.get_by_label("Strength of style", exact=True)).to_have_value("-0.5")
    other.get_by_role("button", name="Remove style").click()
    drop(other, "body", contents[0])
    expect(other.get_by_label("Strength of style", exact=True)).to_have_value("-0.5")
    sent(other)
    assert re.fullmatch(r"style@[0-9a-f]{10}:-0.5", visit.bodies[-1]["lora"][0])
    [again] = ended(with_loras)
    drawn = urllib.request.urlopen(with_loras.address + again["pictures"][0]).read()
    assert Image.open(io.BytesIO(drawn)).tobytes() == pixels[0]
    other.get_by_role("button", name="Remove style").click()
    other.locator(".latest .thumb").first.click()
    other.get_by_role("button", name="Use these settings").click()
    slider = other.get_by_label("Strength of style, slider")
    expect(slider).to_have_value("-0.5")
    slider.press("ArrowRight")
    expect(other.get_by_label("Strength of style", exact=True)).to_have_value("-0.45")


def test_models_are_offered_for_what_they_can_do(visit: Visit, server: Server):
    told = server.ask("/v1/capabilities")
    told["models"] = [
        {
            "name": "default",
            "open": True,
            "tasks": ["txt2img", "img2img", "class2img", "layout2img"],
            "labels": ["frog"],
        },
        {"name": "upscaler", "open": False, "tasks": ["upscale"], "labels": []},
        {"name": "fish", "open": False, "tasks": ["class2img"], "labels": ["tench", "great white shark"]},
        {"name": "painter", "open": False, "tasks": ["inpaint"], "labels": []},
    ]
    for task in told["tasks"].values():
        for name, options in (
            ("sampler", ["ddim", "Euler a"]),
            ("scheduler", ["Karras"]),
            ("label", ["frog", "panda"]),
        ):
            if name in task["fields"]:
                task["fields"][name]["options"] = options
    page = opened(visit, server)
    page.route("**/v1/capabilities", lambda route: route.fulfill(json=told))
    page.reload()

    def offered() -> list[str]:
        return page.locator("#field-model option").all_inner_texts()

    def suggested(name: str) -> list[str]:
        options = "(one) => [...(one.list?.options ?? [])].map((other) => other.value)"
        return page.locator(name).evaluate(options)

    assert offered() == ["default"]
    page.get_by_text("More", exact=True).click()
    assert (suggested("#field-sampler"), suggested("#field-scheduler")) == (["ddim", "Euler a"], ["Karras"])
    edit = page.locator("[data-task=edit]")
    expect(edit).to_be_disabled()
    expect(edit).to_contain_text("no model")
    assert "no model on this server can do it" in edit.get_attribute("title")
    choose(page, "class2img")
    assert offered() == ["default", "fish"]
    assert suggested("#field-label") == ["frog"]
    page.select_option("#field-model", "fish")
    assert suggested("#field-label") == ["tench", "great white shark"]
    choose(page, "layout2img")
    assert (value(page, "model"), offered()) == ("", ["default"])  # fish knows no boxes
    page.get_by_role("button", name="Add a box").click()
    assert suggested("#box-0") == ["frog"]
    choose(page, "inpaint")
    assert (value(page, "model"), offered()) == ("painter", ["default (cannot do this)", "painter"])
    page.evaluate("location.hash = '#task=edit'")
    expect(page.get_by_text("No model on this server can do this.")).to_be_visible()
    page.set_viewport_size({"width": 375, "height": 800})
    option = page.locator(".task-menu option[value=edit]")
    assert (option.inner_text().strip(), option.is_disabled()) == ("Edit: no model here", True)

    # what was never open tells nothing, and may be asked for all
    for model in told["models"]:
        model["tasks"] = model["labels"] = None
    page.goto(f"{server.address}/#task=edit")
    page.reload()
    expect(page.locator("#field-model option")).to_have_count(4)
    expect(page.get_by_text("No model on this server")).to_have_count(0)
    page.evaluate("location.hash = '#task=class2img'")
    expect(page.locator("#field-label")).to_be_visible()
    assert suggested("#field-label") == ["frog", "panda"]


def test_wrong_values_are_told_beside_their_field_and_stay(page: Page, visit: Visit):
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "many")
    page.fill("#field-width", "70")
    draw(page)
    expect(page.locator("#help-steps")).to_contain_text("not a whole number")
    assert visit.bodies == []
    page.fill("#field-steps", "999")
    draw(page)
    expect(page.locator("#help-steps")).to_contain_text("from 1 to 150")
    page.fill("#field-steps", "4")
    draw(page)
    expect(page.locator("#help-width")).to_contain_text("multiple of 8")
    expect(page.locator("#field-width")).to_have_attribute("aria-invalid", "true")
    assert (value(page, "prompt"), value(page, "steps"), value(page, "width")) == (PROMPT, "4", "70")
    page.fill("#field-width", "64")
    expect(page.locator("#help-width")).to_have_text("pixels")
    draw(page)
    made(page)


def test_what_only_the_model_knows_to_be_wrong_is_told_beside_its_field(page: Page):
    choose(page, "class2img")
    page.fill("#field-label", "zorglub")
    draw(page)
    expect(page.locator("#help-label")).to_contain_text("no class")
    choose(page, "upscale")
    give(page, "image", png())
    page.select_option("#field-model", "")
    if "not on this server" in page.locator("#field-model").inner_text():
        draw(page)
        expect(page.locator("#help-model")).to_contain_text("no such model")


# Drawing


def test_a_sentence_becomes_a_picture_that_clears_up_on_the_way(page: Page, server: Server):
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "150")
    page.fill("#field-seed", "7")
    draw(page)
    expect(page.locator("img.preview")).to_be_visible(timeout=PATIENCE)
    assert page.locator("img.preview").get_attribute("src").startswith("data:image/png;base64,")
    expect(page.locator(".sentence")).to_have_text(re.compile(r"^step \d+ of 150, \d+ seconds? left$"))
    expect(page.locator(".heard")).to_have_text(re.compile(r"^step \d+ of 150, \d+ seconds? left$"))
    picture = made(page)
    assert picture.evaluate("(one) => [one.naturalWidth, getComputedStyle(one).imageRendering]") == [64, "pixelated"]
    assert picture.bounding_box()["width"] > 300
    expect(page.locator(".heard")).to_have_text(re.compile(r"^done in "))
    [job] = ended(server)
    assert (job["request"]["prompt"], job["request"]["seed"], job["request"]["steps"]) == (PROMPT, 7, 150)
    expect(page.locator(".latest .thumb").first).to_be_visible()


def test_what_the_model_reads_is_told_while_typing(page: Page):
    prompt = page.locator("#field-prompt")
    prompt.fill("a red zeppelin on a teal background")
    told = page.locator("[data-tokens=prompt]")
    expect(told).to_contain_text("6 of 30 tokens", timeout=PATIENCE)
    expect(told).to_contain_text("The model never saw “zeppelin”; left out")
    prompt.fill("a red apple")
    expect(told).to_contain_text("3 of 30 tokens", timeout=PATIENCE)
    expect(told).not_to_contain_text("never saw")
    prompt.fill("")
    expect(told).to_have_count(0)
    asked: list[dict[str, Any]] = []
    page.on("request", lambda request: request.url.endswith("/v1/tokens") and asked.append(request.post_data_json))
    page.fill("#field-steps", "7")
    page.fill("#field-negative_prompt", "a zeppelin, blurred")
    told = page.locator("[data-tokens=negative_prompt]")
    expect(told).to_contain_text("The model never saw “zeppelin”", timeout=PATIENCE)
    assert asked[-1] == {"prompt": "a zeppelin, blurred", "model": "default", "steps": 7}
    page.get_by_text("More", exact=True).click()
    page.select_option("#field-prompt_style", "plain")
    until_true(lambda: asked[-1].get("prompt_style") == "plain", page)


def test_what_the_model_left_out_is_told_with_the_picture(page: Page):
    page.fill("#field-prompt", "a frog in a zeppelin")
    page.fill("#field-steps", "2")
    sent(page)
    made(page)
    expect(page.locator(".result")).to_contain_text("the model never saw 'zeppelin'; left out")


def test_back_in_time_and_another_way_on(page: Page, server: Server):
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "8")
    page.fill("#field-seed", "7")
    draw(page)
    made(page)
    travel = page.locator("section.travel")
    expect(travel).to_contain_text("after step 8 of 8", timeout=PATIENCE)
    shown = travel.locator(".past:not([aria-busy=true]) img")
    first = shown.get_attribute("src")
    slider = travel.locator("input[type=range]")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    expect(travel).to_contain_text("after step 3 of 8")
    expect(shown).not_to_have_attribute("src", first)
    until(page, "document.querySelector('.travel img').naturalWidth === 64")
    page.fill("#field-prompt", "a frog on a sky blue background")
    travel.get_by_role("button", name="Go on from here").click()
    for _ in range(600):
        job, before = server.ask("/v1/jobs")[:2]
        if job["state"] == "done" and job["request"]["prompt"].startswith("a frog"):
            break
        time.sleep(0.1)
    assert job["request"] == before["request"] | {"prompt": "a frog on a sky blue background"}
    assert server.ask(f"/v1/jobs/{job['id']}/steps")["steps"] == [3, 4, 5, 6, 7]


def test_why_a_picture_is_what_it_is(page: Page):
    page.fill("#field-prompt", "a frog to the left of a panda on a mint background")
    page.fill("#field-steps", "8")
    draw(page)
    made(page)
    page.locator(".frame.made button").first.click()
    why = page.locator(".viewer details.why")
    expect(why).to_be_visible(timeout=PATIENCE)
    why.locator("summary").click()
    expect(why.locator("li")).to_have_count(12, timeout=PATIENCE)
    assert why.locator("li span").all_text_contents()[:2] == ["a", "frog"]
    lit = "(one) => [...one.getContext('2d').getImageData(0, 0, 8, 8).data].filter((_, at) => at % 4 === 3)"
    frog, panda = (why.locator("canvas").nth(number).evaluate(lit) for number in (1, 7))
    sides = [[sum(cells[row * 8 + column] for row in range(8) for column in half) for half in (range(4), range(4, 8))]
             for cells in (frog, panda)]  # fmt: skip
    assert sides[0][0] > sides[0][1]
    assert sides[1][1] > sides[1][0]
    assert max(frog) == max(panda) == 255  # each by its own largest share
    expect(why).to_contain_text(re.compile(r"frog\s*[\d.]+ %"))


def test_what_large_pictures_heard_is_shown_and_old_wishes_end(page: Page, server: Server):
    page.fill("#field-prompt", "a frog")
    page.fill("#field-steps", "6")
    draw(page)
    made(page)
    ended_early: list[str] = []
    page.on("requestfailed", lambda request: ended_early.append(request.url))
    page.route("**/steps/2/words?*", lambda route: None)  # no answer
    maps = [[[0.001] * 300 for _ in range(300)], [[0.5] * 300 for _ in range(300)]]
    page.route("**/steps/3/words?*", lambda route: route.fulfill(json={"words": ["a", "frog"], "maps": maps}))
    why = page.locator(".result details.why")
    with page.expect_request("**/steps/2/words?*"):
        why.locator("summary").click()
    why.locator("input").press("ArrowRight")
    expect(why.locator("li")).to_have_text([re.compile(r"a\s*0.1 %"), re.compile(r"frog\s*50 %")])
    assert [url.partition("/steps")[2] for url in ended_early] == ["/2/words?place=0"]
    full = "(all) => all.map((one) => one.getContext('2d').getImageData(9, 9, 1, 1).data[3])"
    assert why.locator("canvas").evaluate_all(full) == [255, 255]


def test_each_picture_of_a_batch_has_its_past(page: Page, server: Server):
    page.fill("#field-prompt", "a frog")
    page.fill("#field-steps", "4")
    page.fill("#field-batch_size", "2")
    draw(page)
    made(page, 2)
    [job] = ended(server)
    shown = ".past:not([aria-busy=true]) img"

    def pixels(where: str) -> list[int]:
        until(page, f"document.querySelector('{where} {shown}')?.naturalWidth")
        return page.locator(f"{where} {shown}").evaluate(
            """(one) => {
                const canvas = Object.assign(document.createElement('canvas'), {width: 64, height: 64});
                canvas.getContext('2d').drawImage(one, 0, 0);
                return [...canvas.getContext('2d').getImageData(0, 0, 64, 64).data];
            }"""
        )

    first = pixels(".result")
    page.get_by_label("Of picture").select_option("1")
    until(page, "document.querySelector('.past img') === null")
    second = pixels(".result")
    assert first != second
    page.get_by_role("button", name="Pictures").click()
    for place in (1, 0):  # the newest first
        page.locator(".gallery .thumb").nth(1 - place).click()
        assert place == int(page.locator(".viewer-picture img").get_attribute("src")[-1])
        assert pixels(".viewer") == (first, second)[place]
        expect(page.locator(".viewer details.why")).to_be_visible()
        page.keyboard.press("Escape")
    page.locator(".gallery .thumb").nth(1).click()
    page.locator(".viewer .travel input").press("ArrowLeft")
    page.get_by_role("button", name="Go on from here with “a frog”").click()
    expect(page.locator(".viewer")).to_have_count(0)
    made(page, 2)
    assert ended(server)[0]["id"] != job["id"]


def test_a_later_variation_is_drawn_again_as_it_was(page: Page, server: Server):
    varied = "variation_seed=4294967295&variation_strength=0.5&batch_size=2"
    page.evaluate(f"location.hash = '#task=txt2img&prompt=a+frog&steps=3&seed=5&{varied}'")
    expect(page.locator("#field-batch_size")).to_have_value("2")
    draw(page)
    made(page, 2)
    [job] = ended(server)
    page.locator(".frame.made button").nth(1).click()
    page.get_by_role("button", name="Use these settings").click()
    assert (value(page, "seed"), value(page, "batch_size")) == ("5", "")
    sent(page)
    made(page)
    [again] = ended(server)
    assert again["request"]["variation_seed"] == 0  # after the largest
    first, other = (
        Image.open(io.BytesIO(urllib.request.urlopen(server.address + path).read())).tobytes()
        for path in (job["pictures"][1], again["pictures"][0])
    )
    assert max(abs(one - two) for one, two in zip(first, other, strict=True)) <= 2  # alone and in a batch


def test_several_at_once(page: Page):
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "4")
    page.fill("#field-batch_size", "3")
    draw(page)
    made(page, 3)


def test_a_class_becomes_a_picture(page: Page, server: Server):
    choose(page, "class2img")
    page.fill("#field-label", "red apple")
    page.fill("#field-steps", "4")
    draw(page)
    made(page)
    assert ended(server)[0]["request"]["label"] == "red apple"


def test_cancel_by_button_and_by_key(page: Page, server: Server):
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "150")
    for end in (lambda: page.locator(".progress button").click(), lambda: page.keyboard.press("Escape")):
        draw(page)
        expect(page.locator(".sentence")).to_have_text(re.compile("^step"), timeout=PATIENCE)
        end()
        expect(page.get_by_text("Cancelled.")).to_be_visible(timeout=PATIENCE)
        assert ended(server)[0]["state"] == "cancelled"
    assert value(page, "prompt") == PROMPT


def test_the_queue_shows_what_waits_and_one_of_it_can_be_cancelled(page: Page, server: Server):
    page.fill("#field-steps", "150")
    page.locator("#field-prompt").fill("a frog")
    draw(page)
    for prompt in ("a panda", "a pizza"):
        page.fill("#field-prompt", prompt)
        page.fill("#field-cfg_scale", "2" if prompt == "a panda" else "4")  # or all would be drawn together
        page.fill("#field-steps", "149" if prompt == "a panda" else "148")
        draw(page)
    expect(page.locator(".queue li")).to_have_count(3)
    page.get_by_role("button", name="Cancel a pizza").click()
    expect(page.locator(".queue li")).to_have_count(2)
    assert {job["request"]["prompt"]: job["state"] for job in server.ask("/v1/jobs?count=3")}["a pizza"] == "cancelled"
    for _ in range(2):
        page.keyboard.press("Escape")
        time.sleep(1)
    ended(server)


# Pictures to begin with


def test_inpaint_by_painting(page: Page, visit: Visit, server: Server):
    choose(page, "inpaint")
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "6")
    draw(page)
    expect(page.locator(".pane.editor .problem")).to_contain_text("choose a picture")
    give(page, "image", png("gold"))
    canvas = page.locator(".layers canvas")
    draw(page)
    expect(page.locator("#help-mask")).to_contain_text("paint")
    at = within(canvas)
    pull(page, at(0.25, 0.25), at(0.25, 0.75))
    draw(page)
    made(page)
    mask = picture_in(visit.bodies[-1]["mask"]).convert("L")
    assert mask.size == (64, 64)
    assert (mask.getpixel((16, 32)), mask.getpixel((48, 32)), mask.getpixel((16, 60))) == (255, 0, 0)
    assert {pixel for _, pixel in mask.getcolors()} == {0, 255}
    [job] = ended(server)
    with urllib.request.urlopen(server.address + job["pictures"][0]) as answer:
        picture = Image.open(answer).convert("RGB")
    gold = Image.new("RGB", (1, 1), "gold").getpixel((0, 0))
    assert picture.getpixel((48, 32)) == gold
    assert picture.getpixel((16, 32)) != gold

    # erased, taken back, inverted
    page.get_by_role("button", name="Erase", exact=True).click()
    pull(page, at(0.25, 0.15), at(0.25, 0.85))
    draw(page)
    expect(page.locator("#help-mask")).to_contain_text("paint what")
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Invert").click()
    draw(page)
    expect(page.locator(".sentence")).to_have_text(re.compile("^done"), timeout=PATIENCE)
    inverted = picture_in(visit.bodies[-1]["mask"]).convert("L")
    assert [inverted.getpixel(place) for place in ((16, 32), (48, 32))] == [0, 255]
    assert bytes(255 - one for one in inverted.tobytes()) == mask.tobytes()


def test_a_mask_by_keys_alone(page: Page, visit: Visit, server: Server):
    choose(page, "inpaint")
    give(page, "image", png("gold"))
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "2")
    page.locator(".layers canvas").focus()
    for key in ("Shift+ArrowLeft", "Shift+ArrowLeft", " ", *["Shift+ArrowDown"] * 2, " ", "Shift+ArrowRight"):
        page.keyboard.press(key)
    page.keyboard.press("Control+Enter")
    made(page)
    mask = picture_in(visit.bodies[-1]["mask"]).convert("L")
    assert [mask.getpixel(place) for place in ((16, 32), (16, 47), (16, 10), (30, 47))] == [255, 255, 0, 0]
    for key in ("i", "Control+z", "Control+z", "Control+z"):
        page.locator(".layers canvas").press(key)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#help-mask")).to_contain_text("paint what")
    ended(server)


def test_outpaint_by_pulling_a_side(page: Page, visit: Visit, server: Server):
    choose(page, "outpaint")
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "3")
    give(page, "image", png("gold"))
    handle = page.locator("[data-side=right]")
    picture = page.locator(".outpaint image").bounding_box()
    at = within(handle.locator(".grip"))
    x, y = at(0.5, 0.5)
    pull(page, (x, y), (x + picture["width"] / 2, y))
    assert value(page, "right") == "32"
    expect(handle).to_have_attribute("aria-valuenow", "32")
    outline = page.locator(".beyond").bounding_box()
    assert outline["width"] / outline["height"] == pytest.approx(1.5, abs=0.03)
    page.locator("[data-side=top]").focus()
    page.keyboard.press("ArrowUp")
    assert value(page, "top") == "8"
    page.fill("#field-top", "")
    expect(page.get_by_text("64 × 64 becomes 96 × 64")).to_be_visible()
    draw(page)
    picture = made(page)
    assert picture.evaluate("(one) => [one.naturalWidth, one.naturalHeight]") == [96, 64]
    assert (visit.bodies[-1]["right"], "top" in visit.bodies[-1]) == (32, False)
    ended(server)


def test_boxes_drawn_named_moved_and_removed(page: Page, visit: Visit, server: Server):
    choose(page, "layout2img")
    page.fill("#field-steps", "4")
    at = within(page.locator(".paper"))
    pull(page, at(0.05, 0.05), at(0.45, 0.45))
    page.keyboard.type("pizza")
    pull(page, at(0.95, 0.95), at(0.55, 0.55))
    page.keyboard.type("zorglub")
    draw(page)
    expect(page.locator("#help-boxes")).to_contain_text("no class 'zorglub'")
    page.get_by_label("What is in box 2").fill("frog")
    draw(page)
    made(page)
    assert visit.bodies[-1]["boxes"] == ["pizza:0.05,0.05,0.45,0.45", "frog:0.55,0.55,0.95,0.95"]
    pull(page, at(0.3, 0.3), at(0.4, 0.3))  # moved by hand
    page.locator(".box").nth(1).focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".sentence")).to_have_text(re.compile("^done"), timeout=PATIENCE)
    assert visit.bodies[-1]["boxes"] == ["pizza:0.15,0.05,0.55,0.45", "frog:0.53,0.55,0.93,0.93"]
    page.locator(".box").first.click()
    corner = page.locator(".corner.right.bottom .grip").bounding_box()
    start = (corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2)
    width = page.locator(".paper").bounding_box()["width"]
    pull(page, start, (start[0] - 0.1 * width, start[1]))
    page.locator(".box").nth(1).focus()
    page.keyboard.press("Delete")
    expect(page.locator(".box")).to_have_count(1)
    draw(page)
    expect(page.locator(".sentence")).to_have_text(re.compile("^done"), timeout=PATIENCE)
    assert visit.bodies[-1]["boxes"] == ["pizza:0.15,0.05,0.45,0.45"]
    page.get_by_role("button", name="Add a box").click()
    expect(page.get_by_label("What is in box 2")).to_be_focused()
    ended(server)


def test_img2img_begins_with_a_dropped_picture(page: Page, visit: Visit, server: Server):
    choose(page, "img2img")
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "4")
    page.fill("#field-strength", "0.5")
    drop(page, "[data-field=image] .drop", b"no picture", "words.txt", "text/plain")
    expect(page.locator("[data-field=image] img")).to_have_count(0)
    expect(page.locator("#help-image")).to_contain_text("words.txt is no picture")
    drop(page, "[data-field=image] .drop", png("gold", parameters="a frog\nSteps: 3, Seed: 5, Size: 64x64"))
    expect(page.locator("[data-field=image] img")).to_be_visible()
    assert value(page, "prompt") == PROMPT  # the picture, not its settings
    draw(page)
    made(page)
    assert picture_in(visit.bodies[-1]["image"]).getpixel((3, 3)) == (255, 215, 0)
    ended(server)


def test_a_picture_of_any_size_is_made_to_fit(visit: Visit, server: Server):
    page = opened(visit, server)
    limits = {"largest_side": 64}
    page.route("**/v1/capabilities", lambda route: route.fulfill(json=told))
    told = server.ask("/v1/capabilities")
    told["limits"] |= limits
    page.reload()
    choose(page, "img2img")
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "2")
    for size, fitted in (((100, 70), (64, 40)), ((60, 50), (56, 48)), ((5, 64), (8, 64))):
        give(page, "image", striped(size))
        sentence = f"{size[0]} × {size[1]} was made {fitted[0]} × {fitted[1]} to fit"
        expect(page.locator("[data-field=image] .fitted")).to_have_text(sentence)
        sent(page)
        picture = picture_in(visit.bodies[-1]["image"]).convert("RGB")
        assert picture.size == fitted
        if size == (60, 50):  # cut, and no pixel changed
            assert picture.tobytes() == Image.open(io.BytesIO(striped(size))).crop((2, 1, 58, 49)).tobytes()
    give(page, "image", png())
    expect(page.locator("[data-field=image] .fitted")).to_have_count(0)
    ended(server)
    choose(page, "upscale")  # takes any sides, but not any size
    give(page, "image", striped((60, 50)))
    expect(page.locator("[data-field=image] .fitted")).to_have_count(0)
    choose(page, "inpaint")
    expect(page.locator(".pane .fitted")).to_have_text("60 × 50 was made 56 × 48 to fit")


def striped(size: tuple[int, int]) -> bytes:
    picture = Image.new("RGB", size)
    picture.putdata([(4 * (place % size[0]) % 256, place // size[0], 9) for place in range(size[0] * size[1])])
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def test_a_wrong_side_is_marked_there(page: Page):
    choose(page, "outpaint")
    page.fill("#field-prompt", PROMPT)
    give(page, "image", png("gold"))
    page.fill("#field-left", "8")
    page.fill("#field-right", "7")
    draw(page)
    expect(page.locator("#help-right")).to_contain_text("the whole width 79 is not a multiple of 8")
    expect(page.locator(".actions .problem")).to_have_text("Look at Right")
    page.fill("#field-right", "8")
    page.fill("#field-top", "7")
    draw(page)
    expect(page.locator("#help-top")).to_contain_text("the whole height 71")


# Sheets


def test_a_sheet_is_a_labelled_grid(page: Page, visit: Visit, server: Server):
    page.fill("#field-prompt", PROMPT)
    page.get_by_text("Compare on a sheet").click()
    page.select_option("#axis-x", "cfg_scale")
    page.fill("#values-x", "1, lots")
    page.select_option("#axis-y", "steps")
    page.fill("#values-y", "2, 3,4")
    draw(page)
    expect(page.locator("#help-sheet-x")).to_contain_text("“lots” is not a number")
    assert visit.bodies == []
    page.fill("#values-x", "1, 3")
    expect(page.get_by_role("button", name="Draw 6 pictures")).to_be_visible()
    draw(page)
    expect(page.locator(".sheet-grid td img")).to_have_count(6, timeout=PATIENCE)
    expect(page.locator(".sentence")).to_have_text(re.compile("^done"), timeout=PATIENCE)
    heads = [" ".join(text.split()) for text in page.locator(".sheet-grid th").all_inner_texts()]
    assert heads == ["Guidance 1", "Guidance 3", "Steps 2", "Steps 3", "Steps 4"]
    assert [(body["cfg_scale"], body["steps"]) for body in visit.bodies] == [
        (1, 2),
        (3, 2),
        (1, 3),
        (3, 3),
        (1, 4),
        (3, 4),
    ]
    assert len({body["seed"] for body in visit.bodies}) == 1
    expect(page.get_by_role("button", name="Save the sheet")).to_be_visible()
    cells = page.locator(".sheet-grid td img").evaluate_all("(all) => all.map((one) => one.src)")
    by_settings = {
        (job["request"]["cfg_scale"], job["request"]["steps"]): server.address + job["pictures"][0]
        for job in ended(server, 6)
    }
    assert cells == [by_settings[body["cfg_scale"], body["steps"]] for body in visit.bodies]


def test_a_sheet_of_three_settings_in_blocks_is_saved_as_one_picture(page: Page, visit: Visit, server: Server):
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-seed", "3")
    page.get_by_text("Compare on a sheet").click()
    for side, field, values in (
        ("x", "cfg_scale", "1, 3"),
        ("y", "steps", "2"),
        ("z", "prompt", 'a frog, "panda, mint"'),
    ):
        page.select_option(f"#axis-{side}", field)
        page.fill(f"#values-{side}", values)
    page.select_option("#axis-z", "steps")
    draw(page)
    expect(page.locator("#help-sheet-z")).to_contain_text("Down has this one already")
    page.select_option("#axis-z", "prompt")
    page.fill("#values-y", "2, 149")
    page.fill("#values-x", "1, lots")
    draw(page)
    expect(page.locator(".actions .problem")).to_have_text("Look at Across")
    page.fill("#values-x", "1, 3")
    page.get_by_role("button", name="Draw 8 pictures").click()
    expect(page.locator(".sheet-grid td img:not(.preview)").first).to_be_visible(timeout=PATIENCE)
    sizes = "(all) => all.map((one) => one.getBoundingClientRect()).map(({width, height}) => [width, height].join())"
    while_drawing = page.locator(".sheet-grid td").evaluate_all(sizes)
    assert len(while_drawing) == 8 + 2  # and two empty corners
    assert len({one for one in while_drawing if not one.startswith("72")}) == 1
    expect(page.locator(".sentence")).to_have_text(re.compile("^done, 8"), timeout=PATIENCE)
    assert page.locator(".sheet-grid td").evaluate_all(sizes) == while_drawing
    assert [" ".join(one.split()) for one in page.locator("caption").all_inner_texts()] == [
        "Prompt a frog",
        "Prompt panda, mint",
    ]
    told = [(body["prompt"], body["steps"], body["cfg_scale"]) for body in visit.bodies]
    assert told == [(p, s, c) for p in ("a frog", "panda, mint") for s in (2, 149) for c in (1, 3)]
    fragment = page.evaluate("location.hash")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the sheet").click()
    sheet = Image.open(saved.value.path()).convert("RGB")
    jobs = {
        (one["request"]["prompt"], one["request"]["steps"], one["request"]["cfg_scale"]): one
        for one in ended(server, 8)
    }
    side = 64 * 3
    places: list[tuple[int, int]] = []
    for asked in told:
        with urllib.request.urlopen(server.address + jobs[asked]["pictures"][0]) as answer:
            picture = Image.open(answer).convert("RGB").resize((side, side), Image.Resampling.NEAREST)
        column = (told.index(asked) % 2) * (side + 8)
        left = sheet.width - 2 * (side + 8) + column
        boxes = [(left, top, left + side, top + side) for top in range(sheet.height - side + 1)]
        found = [box for box in boxes if sheet.crop(box).tobytes() == picture.tobytes()]
        places.append(found[0][:2])
    assert [top for _, top in places] == sorted(top for _, top in places)
    assert len(set(places)) == 8
    other = opened(visit, server, fragment)
    assert (value_of(other, "axis-z"), value_of(other, "values-z")) == ("prompt", 'a frog, "panda, mint"')


def value_of(page: Page, id: str) -> str:
    return page.locator(f"#{id}").input_value()


# The gallery


def test_a_picture_is_found_again_with_its_settings(page: Page, server: Server):
    page.fill("#field-prompt", "a frog on a yellow background")
    page.fill("#field-steps", "5")
    draw(page)
    made(page)
    [first] = ended(server)
    page.reload()
    page.fill("#field-prompt", "something else")
    page.fill("#field-steps", "9")
    page.get_by_role("button", name="Pictures").click()
    page.locator(".gallery .thumb").first.click()
    expect(page.locator(".viewer h2")).to_have_text("a frog on a yellow background")
    expect(page.locator(".metadata")).to_contain_text(str(first["request"]["seed"]))
    page.get_by_role("button", name="Use these settings").click()
    assert (value(page, "prompt"), value(page, "steps")) == ("a frog on a yellow background", "5")
    assert value(page, "seed") == str(first["request"]["seed"])
    draw(page)
    made(page)
    [again] = ended(server)
    assert again["id"] != first["id"]
    contents = [urllib.request.urlopen(server.address + job["pictures"][0]).read() for job in (first, again)]
    assert contents[0] == contents[1]


def test_a_picture_is_sent_on_saved_and_deleted(page: Page, server: Server):
    page.fill("#field-prompt", "a pizza")
    page.fill("#field-steps", "3")
    draw(page)
    made(page)
    [job] = ended(server)
    page.locator(".latest .thumb").first.click()
    with page.expect_download() as saved:
        page.locator(".viewer").get_by_text("Download").click()
    kept = Path(saved.value.path()).read_bytes()
    assert kept == urllib.request.urlopen(server.address + job["pictures"][0]).read()
    page.locator(".viewer [data-send=outpaint]").click()
    expect(page.locator("[data-task=outpaint]")).to_have_attribute("aria-current", "true")
    expect(page.locator(".outpaint image")).to_be_visible()
    page.locator(".latest .thumb").first.click()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete it for good").click()
    expect(page.locator(".viewer h2")).not_to_have_text("a pizza", timeout=PATIENCE)
    assert job["id"] not in [one["job"] for one in server.ask("/v1/pictures?count=500")]


def test_ten_thousand_pictures_scroll(visit: Visit, tmp_path: Path):
    from tintype.serving.jobs import Store, Terms

    data = tmp_path / "data"
    (data / "pictures").mkdir(parents=True)
    (data / "one.png").write_bytes(png("teal"))
    store = Store(data / "queue.sqlite")
    for hundred in range(20):
        job, _ = store.add({"prompt": f"lot {hundred}"}, Terms(owner="127.0.0.1", model="default"), limit=1000)
        store.begin([job.id])
        store.end(job.id, "done", pictures=[(64, 64, seed) for seed in range(500)])
        for place in range(500):
            os.link(data / "one.png", data / "pictures" / f"{job.id}-{place}.png")
    store.close()
    with running(data) as server:
        page = opened(visit, server)
        page.get_by_role("button", name="Pictures").click()
        expect(page.locator(".gallery .thumb").first).to_be_visible()
        box = page.locator(".gallery-window")
        most, frames = 0, 0
        for _ in range(200):
            told = box.evaluate(
                """async (box) => {
                    box.scrollTop += box.clientHeight * 5;
                    const from = performance.now();
                    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
                    return [document.querySelectorAll('.gallery .thumb').length, performance.now() - from,
                        box.scrollTop + box.clientHeight >= box.scrollHeight - 2];
                }"""
            )
            most, frames = max(most, told[0]), max(frames, told[1])
            if told[2] and page.locator(".gallery h2 small").inner_text() == "10000":
                break
            time.sleep(0.03)
        expect(page.locator(".gallery h2")).to_contain_text("10000")
        assert 20 < most < 200
        assert frames < 2000  # milliseconds for two, on a machine that draws as well
        page.keyboard.press("Tab")
        page.locator(".gallery .thumb").last.focus()
        page.keyboard.press("End")
        last = page.locator(".gallery .thumb[data-place='9999']")
        expect(last).to_be_focused()
        until(page, "document.activeElement.querySelector('img')?.naturalWidth === 64")
        page.keyboard.press("Enter")
        expect(page.locator(".viewer h2")).to_have_text("lot 0")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Escape")
        expect(page.locator("dialog")).to_have_count(0)
        page.locator(".gallery .thumb").first.focus()
        page.keyboard.press("Home")
        expect(page.locator(".gallery .thumb[data-place='0']")).to_be_focused()
        server.stop()  # while the page is open: no error either
        expect(page.get_by_text("The server does not answer")).to_be_visible(timeout=PATIENCE)


# Settings that come from elsewhere

A1111 = (
    "a (red:1.2) apple, on sky\nand more\nNegative prompt: blur,\nnoise\n"
    'Steps: 12, Sampler: Euler, CFG scale: 4.5, Seed: 77, Size: 72x64, Clip skip: 2, Model: "x: y", Version: v1.10.1'
)


def test_a_dropped_picture_of_ours_fills_the_form(page: Page, server: Server):
    page.fill("#field-prompt", "a panda, größer “quoted”")
    page.fill("#field-steps", "3")
    page.fill("#field-batch_size", "2")
    page.get_by_text("More", exact=True).click()
    page.check("#field-exact")
    page.select_option("#field-prompt_style", "plain")
    draw(page)
    made(page, 2)
    [job] = ended(server)
    content = urllib.request.urlopen(server.address + job["pictures"][1]).read()
    page.goto(server.address + "/#task=class2img&label=frog")
    page.reload()
    expect(page.locator("#field-label")).to_have_value("frog")
    drop(page, "body", content)
    expect(page.locator("#field-prompt")).to_have_value("a panda, größer “quoted”")
    assert value(page, "seed") == str(job["request"]["seed"] + 1)  # of the second picture
    assert (value(page, "steps"), value(page, "batch_size"), value(page, "prompt_style")) == (
        "3",
        "",
        "plain",
    )  # one picture, as usual
    assert page.locator("#field-exact").is_checked()


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iTXt packed"])
def test_a_dropped_picture_of_others_fills_the_form(page: Page, kind: str):
    told = PngImagePlugin.PngInfo()
    if kind.startswith("iTXt"):
        told.add_itxt("parameters", A1111, zip="packed" in kind)
    else:
        told.add_text("parameters", A1111, zip=kind == "zTXt")
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG", pnginfo=told)
    drop(page, "body", content.getvalue())
    expect(page.locator("#field-prompt")).to_have_value("a (red:1.2) apple, on sky\nand more")
    names = ("negative_prompt", "steps", "cfg_scale", "seed", "width", "height", "sampler", "clip_skip")
    found = [value(page, name) for name in names]
    assert found == ["blur,\nnoise", "12", "4.5", "77", "72", "64", "Euler", "2"]


@pytest.mark.parametrize("damage", ["cut", "length", "zip", "json"])
def test_a_damaged_picture_changes_nothing(page: Page, damage: str):
    page.fill("#field-prompt", PROMPT)
    content = png(parameters=A1111) if damage != "json" else png(tintype='{"request": ')
    if damage == "cut":
        content = content[:60]
    elif damage == "length":
        content = content[:33] + b"\xff\xff\xff\xff" + content[37:]
    elif damage == "zip":
        content = content.replace(b"tEXtparameters\0", b"zTXtparameters\0")
    drop(page, "body", content)
    if damage in ("cut", "length"):
        expect(page.locator(".said")).to_contain_text("dropped.png: not a picture that can be read")
    else:
        expect(page.locator(".offer")).to_contain_text("dropped.png does not tell how it was made")
    assert value(page, "prompt") == PROMPT


def test_a_dropped_picture_is_offered_to_begin_with(page: Page, visit: Visit, server: Server):
    drop(page, "body", b"no picture", "words.txt", "text/plain")
    expect(page.locator(".said")).to_contain_text("words.txt is no picture")
    drop(page, "body", b"no picture", "words.png")
    expect(page.locator(".said")).to_contain_text("words.png: not a picture")
    drop(page, "body", png("gold"), "photo.png")
    page.locator(".offer").get_by_role("button", name="No", exact=True).click()
    expect(page.locator(".offer")).to_have_count(0)
    drop(page, "body", png("gold"), "photo.png")
    expect(page.locator(".offer")).to_contain_text("photo.png does not tell how it was made")
    expect(page.locator(".offer button").first).to_be_focused()
    page.locator(".offer").get_by_role("button", name="Picture").click()
    expect(page.locator("[data-field=image] img")).to_be_visible()
    expect(page.locator("[data-task=img2img]")).to_have_attribute("aria-current", "true")
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "2")
    sent(page)
    assert picture_in(visit.bodies[-1]["image"]).getpixel((3, 3)) == (255, 215, 0)
    ended(server)


def test_an_endless_line_of_settings_takes_no_time(page: Page):
    drop(page, "body", png(parameters="a" * 200_000))
    started = time.monotonic()
    expect(page.locator("#field-prompt")).to_have_value(re.compile("^aaa"))
    assert time.monotonic() - started < 5


def test_what_a_picture_tells_is_text_and_never_markup(page: Page, visit: Visit):
    drop(page, "body", png(parameters="<img src=x onerror=violations.push(1)>\nSteps: 2, Seed: 1, Size: 64x64"))
    expect(page.locator("#field-prompt")).to_have_value(re.compile("^<img"))
    draw(page)
    made(page)
    page.locator(".frame.made .plain").click()
    expect(page.locator(".viewer h2")).to_contain_text("<img src=x")
    assert page.evaluate("document.querySelectorAll('h2 img').length") == 0


def test_the_address_restores_the_form(page: Page, visit: Visit, server: Server):
    choose(page, "layout2img")
    page.get_by_role("button", name="Add a box").click()
    page.keyboard.type("red apple")
    page.fill("#field-prompt", "50% & more = größe #1\nline")
    page.fill("#field-cfg_scale", "2.5")
    page.get_by_text("More", exact=True).click()
    page.check("#field-exact")
    page.get_by_text("Compare on a sheet").click()
    page.select_option("#axis-x", "seed")
    page.fill("#values-x", "1, 2")
    until(page, "location.hash.includes('x=seed%3D1%2C+2')")
    fragment = page.evaluate("location.hash")
    other = opened(visit, server, fragment)
    expect(other.locator("[data-task=layout2img]")).to_have_attribute("aria-current", "true")
    expect(other.get_by_label("What is in box 1")).to_have_value("red apple")
    names = ("prompt", "cfg_scale")
    assert [value(other, name) for name in names] == ["50% & more = größe #1\nline", "2.5"]
    assert other.locator("#field-exact").is_checked()
    assert other.locator("#values-x").input_value() == "1, 2"
    assert other.evaluate("location.hash") == fragment
    other.evaluate("location.hash = '#task=txt2img&prompt=a+frog'")
    expect(other.locator("#field-prompt")).to_have_value("a frog")
    assert value(other, "cfg_scale") == ""
    assert visit.bodies == []  # a link draws nothing by itself


def test_an_address_of_no_task_or_field_changes_nothing(visit: Visit, server: Server):
    """Such as what all objects of JavaScript have."""
    page = opened(visit, server, "#task=constructor&prompt=a+dog")
    expect(page.locator("[data-task=txt2img]")).to_have_attribute("aria-current", "true")
    page = opened(visit, server, "#task=txt2img&prompt=a+dog&x=constructor=1,2")
    assert (value(page, "prompt"), page.locator("#values-x").count()) == ("a dog", 0)
    drop(page, "body", png(tintype='{"request": {"task": "constructor", "prompt": "a frog"}}'))
    expect(page.locator("#field-prompt")).to_have_value("a frog")
    expect(page.locator("[data-task=txt2img]")).to_have_attribute("aria-current", "true")


def test_an_address_gone_to_is_not_written_over(page: Page, server: Server):
    """The page writes its own address now and then; the browser tells of another one only after the running script."""
    page.fill("#field-prompt", "a dog")
    page.evaluate("location.hash = '#task=class2img'; dispatchEvent(new Event('pagehide'))")
    expect(page.locator("[data-task=class2img]")).to_have_attribute("aria-current", "true")


# Everyone


def test_by_keys_alone_with_focus_in_sight(page: Page, server: Server):
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        told = page.evaluate(
            """() => {
                const one = document.activeElement;
                const style = getComputedStyle(one);
                return [one.id || one.textContent.trim(), one.tagName,
                    style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
            }"""
        )
        if told[1] == "BODY":
            break
        reached.append(told[0])
        assert told[2], f"no focus to be seen on {told[0]}"
    assert {"field-prompt", "field-steps", "field-seed", "field-width", "field-model", "More"} <= set(reached)
    assert any(one.startswith("Draw") for one in reached)
    page.locator("#field-prompt").focus()
    page.keyboard.type(PROMPT)
    page.locator("#field-steps").focus()
    for _ in range(4):
        page.keyboard.press("ArrowUp")
    assert value(page, "steps") == "5"
    page.keyboard.press("Control+Enter")
    made(page)
    page.locator(".frame.made button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog.viewer")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(".frame.made button")).to_be_focused()
    ended(server)


def test_dark_and_light(visit: Visit, server: Server):
    def ground(page: Page) -> float:
        numbers = page.evaluate("getComputedStyle(document.documentElement).backgroundColor.match(/[\\d.]+/g)")
        return sum(map(float, numbers[:3]))

    light = opened(visit, server, color_scheme="light")
    dark = opened(visit, server, color_scheme="dark")
    assert ground(dark) < 150
    assert ground(light) > 600
    light.get_by_role("button", name="Dark colours").click()
    assert ground(light) < 150
    light.reload()
    assert ground(light) < 150
    light.get_by_role("button", name="Light colours").click()
    assert ground(light) > 600


def test_letters_can_be_read_in_both(visit: Visit, server: Server):
    contrast = """() => {
        const light = (colour) => {
            const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255)
                .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ground = (one) => {
            for (let at = one; at; at = at.parentElement) {
                const colour = getComputedStyle(at).backgroundColor;
                if (colour.startsWith('rgb(')) return colour;
            }
            return getComputedStyle(document.documentElement).backgroundColor;
        };
        return [...document.querySelectorAll('button, label, .help, h1, h2, .lead, summary, legend')]
            .filter((one) => one.checkVisibility() && !one.disabled && one.textContent.trim())
            .map((one) => {
                const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((a, b) => b - a);
                return [(a + 0.05) / (b + 0.05), one.textContent.trim().slice(0, 40)];
            }).filter(([ratio]) => ratio < 4.5);
    }"""
    for scheme in ("light", "dark"):
        page = opened(visit, server, color_scheme=scheme)
        assert page.evaluate(contrast) == []


@pytest.mark.parametrize("width", [320, 768, 1280, 3840])
def test_nothing_is_wider_than_the_window(visit: Visit, server: Server, width: int):
    page = opened(visit, server, width=width, height=720)

    def fits(what: str) -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width, what
        outside = """(width) => [...document.querySelectorAll('button, input, select, textarea, h1, h2, p, svg.canvas')]
            .filter((one) => one.checkVisibility() && !one.closest('.sheet-scroll, .latest, .unseen, .heard, .said'))
            .filter((one) => one.getBoundingClientRect().right > width + 1 || one.getBoundingClientRect().left < -1)
            .map((one) => one.outerHTML.slice(0, 120))"""
        assert page.evaluate(outside, width) == [], what

    for task in server.ask("/v1/capabilities")["tasks"]:
        page.evaluate("(task) => { location.hash = `#task=${task}&x=seed%3D1%2C2&prompt=${'long'.repeat(60)}`; }", task)
        expect(page.locator(f"[data-task={task}]")).to_have_attribute("aria-current", "true")
        fits(task)
        for editor in page.locator(".pane.editor [data-field=image]").all():
            give(page, "image", png(size=(64, 40)))
            expect(editor).to_have_count(0)
            fits(f"{task} with a picture")
    page.evaluate("location.hash = '#task=txt2img&prompt=a+frog&steps=2'")
    expect(page.locator("#field-prompt")).to_have_value("a frog")
    draw(page)
    made(page)
    expect(page.locator(".frame.made img")).to_be_in_viewport(ratio=0.5)
    fits("made")
    page.locator(".frame.made .plain").click()
    expect(page.locator(".viewer .metadata")).to_contain_text("Seed")
    fits("viewer")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Pictures").click()
    expect(page.locator(".gallery .thumb").first).to_be_visible()
    fits("gallery")


def test_targets_are_large_enough_for_fingers(visit: Visit, server: Server):
    page = opened(visit, server, width=375, height=800)
    sizes = page.evaluate(
        """[...document.querySelectorAll('button, input, select, summary')]
            .filter((one) => one.checkVisibility() && !['range', 'checkbox', 'file'].includes(one.type))
            .map((one) => [one.getBoundingClientRect().height, one.outerHTML.slice(0, 80)])"""
    )
    assert len(sizes) > 10
    assert [one for one in sizes if one[0] < 43.5] == []


def test_nothing_moves_for_who_wants_no_motion(visit: Visit, server: Server):
    for motion, expected in (("no-preference", "shimmer"), ("reduce", "none")):
        page = opened(visit, server, reduced_motion=motion)
        page.route("**/v1/jobs", lambda route: time.sleep(0.5) or route.continue_())
        page.fill("#field-prompt", "a frog")
        page.fill("#field-steps", "2")
        draw(page)
        expect(page.locator(".shimmer")).to_have_css("animation-name", expected)
        made(page)


# The server's side


def test_a_token_is_asked_for_once_and_sent(visit: Visit, tmp_path: Path):
    with running(tmp_path / "data", "--token", "a-long-secret") as server:
        page = visit.open(server.address)
        expect(page.locator("#token")).to_be_visible(timeout=PATIENCE)
        page.locator("#token").fill("a-wrong-secret")
        page.keyboard.press("Enter")
        expect(page.get_by_text("That one was not right")).to_be_visible()
        page.locator("#token").fill("a-long-secret")
        page.keyboard.press("Enter")
        page.fill("#field-prompt", PROMPT)
        page.fill("#field-steps", "150")
        draw(page)
        expect(page.locator("img.preview")).to_be_visible(timeout=PATIENCE)
        assert made(page).get_attribute("src").startswith("blob:")
        page.reload()
        expect(page.locator("#field-prompt")).to_have_value(PROMPT)
        expect(page.locator("dialog")).to_have_count(0)
        assert page.evaluate("localStorage.length") == 0
        assert "secret" not in page.url


def test_a_restart_of_the_server_loses_nothing(visit: Visit, tmp_path: Path):
    with running(tmp_path / "data") as server:
        page = opened(visit, server)
        page.fill("#field-prompt", PROMPT)
        page.fill("#field-steps", "150")
        draw(page)
        expect(page.locator(".sentence")).to_have_text(re.compile("^step"), timeout=PATIENCE)
        server.stop(signal.SIGKILL)
        expect(page.get_by_text("The server does not answer")).to_be_visible(timeout=PATIENCE)
        page.fill("#field-steps", "5")
        server.start()
        expect(page.get_by_text("The server does not answer")).to_have_count(0, timeout=PATIENCE)
        expect(page.get_by_text("The server stopped while it was drawn.")).to_be_visible(timeout=PATIENCE)
        assert (value(page, "prompt"), value(page, "steps")) == (PROMPT, "5")
        page.get_by_role("button", name="Draw again").click()
        made(page)


def test_a_model_that_cannot_be_opened_is_told(page: Page, server: Server):
    why = "the embedded model cannot be opened: no such file"
    down = {"ready": False, "stopping": False, "failure": why}
    page.route("**/readyz", lambda route: route.fulfill(status=503, json=down))
    page.route(
        "**/v1/jobs",
        lambda route: route.fulfill(status=503, headers={"Retry-After": "10"}, json={"detail": why}),
    )
    page.fill("#field-prompt", PROMPT)
    draw(page)
    expect(page.locator(".actions .problem")).to_have_text(why)
    expect(page.locator(".banner")).to_contain_text(why)
    assert value(page, "prompt") == PROMPT
    page.unroute_all()
    expect(page.locator(".banner")).to_have_count(0, timeout=PATIENCE)  # mended meanwhile
    sent(page)
    made(page)


def test_who_comes_back_sees_the_last_picture(page: Page, server: Server):
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "3")
    page.fill("#field-seed", "4294967295")
    sent(page)
    source = made(page).get_attribute("src")
    fits = "(one) => one.scrollWidth <= one.clientWidth"
    assert page.locator("#field-seed").evaluate(fits)  # is seen whole
    page.reload()
    assert made(page).get_attribute("src") == source
    page.fill("#field-seed", "")
    page.get_by_label("Use the last seed again").click()
    assert value(page, "seed") == "4294967295"


def test_what_is_said_covers_no_picture_below(page: Page, server: Server):
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "2")
    sent(page)
    made(page)
    page.locator(".stage").evaluate("(one) => one.scrollTo(0, one.scrollHeight)")
    drop(page, "body", b"no picture", "words.txt", "text/plain")
    expect(page.locator(".said")).to_have_css("opacity", "1")
    said, latest = page.locator(".said").bounding_box(), page.locator(".latest").bounding_box()
    assert latest["y"] + latest["height"] <= 800
    assert said["y"] + said["height"] < latest["y"]


def test_the_right_button_is_told_of_where_there_is_one(visit: Visit, server: Server):
    for options, count in (({}, 1), ({"has_touch": True, "is_mobile": True}, 0)):
        page = opened(visit, server, "#task=inpaint", **options)
        give(page, "image", png())
        expect(page.locator("#help-mask")).to_contain_text("Paint over")
        assert page.get_by_text("right button").count() == count


def test_the_page_comes_back_to_a_job_that_goes_on(page: Page, server: Server):
    page.fill("#field-prompt", PROMPT)
    page.fill("#field-steps", "150")
    draw(page)
    expect(page.locator(".sentence")).to_have_text(re.compile("^step"), timeout=PATIENCE)
    page.reload()
    expect(page.locator(".sentence")).to_have_text(re.compile("^step"), timeout=PATIENCE)
    page.keyboard.press("Escape")
    expect(page.get_by_text("Cancelled.")).to_be_visible(timeout=PATIENCE)
    ended(server)


def test_what_the_policy_stops_is_noticed(visit: Visit, server: Server):
    """That the tests above can fail."""
    page = opened(visit, server)
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'var bad = 1'}))")
    page.evaluate("fetch('http://example.invalid/').catch(() => {})")
    until(page, "window.violations.length === 2")
    assert sorted(visit.violations) == ["connect-src", "script-src-elem"]
    page.evaluate("window.violations = []")
    visit.elsewhere.clear()
    assert page.evaluate("typeof bad") == "undefined"
