import hashlib
import re
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from tintype.data.emoji import synonyms, vocabulary
from tintype.data.scenes import (
    COLOURS,
    POSITIONS,
    RELATIONS,
    Placement,
    Plan,
    Scene,
    SceneConfig,
    Scenes,
    background,
    held_out,
    with_article,
)

MANY = SceneConfig(split="all", objects=(0.25, 0.25, 0.25, 0.25), gradients=0.4)
FINGERPRINT = """
import hashlib, sys
from tintype.data.scenes import SceneConfig, Scenes
scenes = Scenes(SceneConfig(seed=3))
for index in (0, 5, 1_000, 10_000_000):
    scene = scenes[index]
    digest = hashlib.sha256()
    for array in (scene.picture, scene.boxes, scene.classes, scene.masks):
        digest.update(array.tobytes())
    print(index, digest.hexdigest(), scene.caption)
"""


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    scenes = Scenes(MANY)
    return [scenes[index] for index in range(400)]


def pixels(boxes: NDArray[np.float32], size: int) -> list[tuple[int, int, int, int]]:
    whole = np.rint(boxes * size).astype(int)
    assert np.allclose(whole, boxes * size, atol=1e-4)
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in whole]


# Purity


def test_a_scene_is_a_pure_function_of_config_and_index() -> None:
    first, second = Scenes(SceneConfig(seed=3)), Scenes(SceneConfig(seed=3))
    second[7]
    second.plan(11)
    for index in (4, 0, 4, 123_456_789):
        a, b = first[index], second[index]
        assert a.plan == b.plan
        for name in ("picture", "boxes", "classes", "masks"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
            assert getattr(a, name).dtype == getattr(b, name).dtype
    assert first[0].plan != first[1].plan
    assert first.plan(0) != Scenes(SceneConfig(seed=4)).plan(0)


def test_other_processes_make_the_same_scenes() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].splitlines()) == 4
    caption = runs[0].splitlines()[1].split(" ", 2)[2]
    assert caption == Scenes(SceneConfig(seed=3)).plan(5).caption


def test_scenes_never_move() -> None:
    """Latents that a run keeps on disk belong to captions that are made anew whenever it goes on."""
    scenes = Scenes(SceneConfig(grid=8))
    assert [(plan.caption, plan.placements[-1].centre) for plan in map(scenes.plan, (1, 7, 65_535))] == [
        ("a peacock to the left of a money bag on a black to mint gradient background", (0.75, 0.375)),
        ("a swan on a navy background", (0.625, 0.625)),
        ("a mouse face on a brown background", (0.625, 0.375)),
    ]
    captions = "\n".join(scenes.plan(index).caption for index in range(500))
    assert hashlib.sha256(captions.encode()).hexdigest().startswith("b3b66c6bf5001db5")


def test_there_is_no_scene_before_the_first() -> None:
    with pytest.raises(IndexError, match="scene -1"):
        Scenes(SceneConfig())[-1]


# Pictures, boxes, classes, masks


def test_shapes_and_ranges(many: list[Scene]) -> None:
    for scene in many:
        count = len(scene.plan.placements)
        assert 1 <= count <= 4
        assert (scene.picture.shape, scene.picture.dtype) == ((64, 64, 3), np.uint8)
        assert (scene.boxes.shape, scene.boxes.dtype) == ((count, 4), np.float32)
        assert (scene.classes.shape, scene.classes.dtype) == ((count,), np.int64)
        assert (scene.masks.shape, scene.masks.dtype) == ((count, 64, 64), np.bool_)
        assert 0 <= scene.boxes.min() < scene.boxes.max() <= 1


def test_boxes_hold_all_that_differs_from_the_background_and_no_more(many: list[Scene]) -> None:
    for scene in many:
        empty = np.clip(background(scene.plan) + 0.5, 0, 255).astype(np.uint8)
        differs = (scene.picture != empty).any(axis=-1)
        for left, top, right, bottom in pixels(scene.boxes, 64):
            inside = differs[top:bottom, left:right]
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()
            differs[top:bottom, left:right] = False
        assert not differs.any()


def test_masks_are_what_covers_half_or_more(many: list[Scene]) -> None:
    """Coverage recovered from the pictures alone: the same scene on white and on black."""
    scenes = Scenes(MANY)
    for scene in many[:100]:
        seen = [
            scenes.render(Plan(size=64, caption="", colours=(name,), fill="solid", placements=scene.plan.placements))
            for name in ("white", "black")
        ]
        white, black = (one.picture.astype(float).mean(axis=-1) for one in seen)
        coverage = 1 - (white - black) / (255 - 16)
        together = scene.masks.any(axis=0)
        sure = np.abs(coverage - 0.5) > 0.02
        assert ((coverage > 0.5) == together)[sure].all()
        assert (scene.masks.sum(axis=0) <= 1).all()
        for mask, (left, top, right, bottom) in zip(scene.masks, pixels(scene.boxes, 64), strict=True):
            assert mask[top:bottom, left:right].sum() == mask.sum() > 0


def test_of_two_that_overlap_the_later_one_is_seen() -> None:
    scenes = Scenes(MANY)
    apple, ball = (next(one for one in vocabulary(256) if one.name == name) for name in ("red apple", "soccer ball"))
    both = (Placement(emoji=apple, side=40, centre=(0.45, 0.5)), Placement(emoji=ball, side=40, centre=(0.55, 0.5)))

    def draw(*placements: Placement) -> Scene:
        return scenes.render(Plan(size=64, caption="", colours=("white",), fill="solid", placements=placements))

    over, lower, upper = draw(*both), draw(both[0]), draw(both[1])
    assert (over.masks[1] == upper.masks[0]).all()
    assert (over.masks[0] == lower.masks[0] & ~upper.masks[0]).all()
    assert over.masks[0].sum() < lower.masks[0].sum()
    assert np.allclose(over.boxes[0], lower.boxes[0])  # the box is the object's, not what is left of it


def test_classes_are_what_is_drawn(many: list[Scene]) -> None:
    scenes = Scenes(MANY)
    for scene in many[:100]:
        for number, (left, top, right, bottom) in zip(scene.classes, pixels(scene.boxes, 64), strict=True):
            glyph = scenes.glyphs.draw(vocabulary(256)[number].character, max(right - left, bottom - top))
            assert glyph.shape[:2] == (bottom - top, right - left)
            solid = glyph[..., 3] == 255
            drawn = scene.picture[top:bottom, left:right].astype(int)
            assert np.abs(drawn - glyph[..., :3])[solid].max() <= 1


def test_no_scene_shows_an_emoji_twice_and_several_do_not_touch(many: list[Scene]) -> None:
    for scene in many:
        assert len(set(scene.classes.tolist())) == len(scene.classes)
        for (a, b, c, d), (e, f, g, h) in combinations(pixels(scene.boxes, 64), 2):
            assert c <= e or g <= a or d <= f or h <= b


@pytest.mark.parametrize("size", [32, 96])
def test_other_sizes_show_the_same_things(size: int) -> None:
    small, usual = Scenes(SceneConfig(size=size)), Scenes(SceneConfig())
    for index in range(20):
        a, b = small[index], usual[index]
        assert a.caption == b.caption
        assert a.picture.shape == (size, size, 3)
        assert np.abs(a.boxes - b.boxes).max() < 2 / min(size, 64)


def test_every_number_of_objects_comes_as_often_as_asked() -> None:
    scenes = Scenes(SceneConfig(split="all", objects=(0.1, 0.2, 0.3, 0.4)))
    counts = [len(scenes.plan(index).placements) for index in range(1500)]
    for number, share in enumerate((0.1, 0.2, 0.3, 0.4), 1):
        assert abs(counts.count(number) / 1500 - share) < 0.045
    only = Scenes(SceneConfig(objects=(0, 0, 1)))
    assert {len(only.plan(index).placements) for index in range(50)} == {3}
    rounded = Scenes(SceneConfig(objects=(0.3333333, 0.3333333, 0.3333333)))
    assert {len(rounded.plan(index).placements) for index in range(50)} == {1, 2, 3}


def test_solid_backgrounds_and_gradients(many: list[Scene]) -> None:
    fills = [scene.plan.fill for scene in many]
    assert 0.3 < 1 - fills.count("solid") / len(fills) < 0.5
    assert {"solid", "horizontal", "vertical"} == set(fills)
    for scene in many[:150]:
        canvas, ends = background(scene.plan), [np.asarray(COLOURS[name], float) for name in scene.plan.colours]
        assert (canvas.shape, canvas.dtype) == ((64, 64, 3), np.float32)
        if scene.plan.fill == "solid":
            assert len(ends) == 1
            assert (canvas == ends[0]).all()
            continue
        assert len(set(scene.plan.colours)) == 2
        line = canvas[0] if scene.plan.fill == "horizontal" else canvas[:, 0]
        other = canvas[:, 0] if scene.plan.fill == "horizontal" else canvas[0]
        assert np.allclose(line[0], ends[0], atol=1e-3)
        assert np.allclose(line[-1], ends[1], atol=1e-3)
        assert np.allclose(np.diff(line, axis=0), (ends[1] - ends[0]) / 63, atol=1e-3)
        assert np.allclose(other, other[0])


# Captions tell the truth: every word is checked against the pixels and boxes


def corner_colours(scene: Scene) -> tuple[str, str, str]:
    """The names nearest to the picture's top left, top right and bottom left pixels of pure background."""
    empty = background(scene.plan)
    table = np.asarray(list(COLOURS.values()), float)
    corners = (empty[0, 0], empty[0, -1], empty[-1, 0])
    left, right, low = (list(COLOURS)[int(np.abs(table - corner).sum(axis=1).argmin())] for corner in corners)
    return left, right, low


def seen_background(scene: Scene) -> str:
    """The part of a caption that speaks of the background, as a pattern."""
    left, right, low = corner_colours(scene)
    if left != right:
        return rf" on an? {left} to {right} gradient background"
    if left != low:
        return rf" on an? {left} over {low} gradient background"
    return rf" on an? {left} background| on {left}"


def seen_relation(scene: Scene) -> str:
    (a, b), (c, d) = ((box[:2] + box[2:]) / 2 for box in scene.boxes)
    if abs(c - a) > abs(d - b):
        return "to the left of" if a < c else "to the right of"
    return "above" if b < d else "below"


def seen_position(scene: Scene) -> str:
    x, y = (scene.boxes[0][:2] + scene.boxes[0][2:]) / 2
    column, row = (0 if at < 0.44 else 1 if at < 0.56 else 2 for at in (x, y))
    names = (
        ("in the top left corner", "at the top", "in the top right corner"),
        ("on the left", "in the center", "on the right"),
        ("in the bottom left corner", "at the bottom", "in the bottom right corner"),
    )
    return names[row][column]


def seen_size(scene: Scene) -> str:
    """The word for it; the middle size has none."""
    side = float((scene.boxes[0][2:] - scene.boxes[0][:2]).max())
    return "small " if side < 0.585 else "" if side < 0.78 else "large "


def nouns(scene: Scene) -> list[str]:
    """For each object, a pattern of all that it may be called."""
    known = synonyms(256)
    names = [vocabulary(256)[number].name for number in scene.classes]
    return ["(?:" + "|".join(map(re.escape, (name, *known[name]))) + ")" for name in names]


def truth(scene: Scene) -> str:
    """A pattern that a caption matches only if everything it says is so."""
    objects = [rf"(?:an? )?{noun}" for noun in nouns(scene)]
    match len(objects):
        case 1:
            subject = rf"(?:an? )?{seen_size(scene)}{nouns(scene)[0]}(?: {seen_position(scene)})?"
        case 2:
            subject = f"{objects[0]} {seen_relation(scene)} {objects[1]}"
        case _:
            subject = f"{', '.join(objects[:-1])} and {objects[-1]}"
    return rf"(?:a picture of )?{subject}(?:{seen_background(scene)})?"


def test_captions_say_what_is_to_be_seen(many: list[Scene]) -> None:
    for scene in many:
        assert re.fullmatch(truth(scene), scene.caption), (scene.caption, truth(scene))


def test_plain_captions_say_all_of_it_in_one_way() -> None:
    scenes = Scenes(SceneConfig(split="all", plain_captions=True, objects=(0.25, 0.25, 0.25, 0.25)))
    for index in range(150):
        scene = scenes[index]
        names = [with_article(one.emoji.name) for one in scene.plan.placements]
        found = [scene.caption.find(name.split(" ", 1)[-1]) for name in names]
        assert found == sorted(found)
        assert -1 not in found
        assert re.search(seen_background(scene).split("|")[0] + "$", scene.caption)
        assert not scene.caption.startswith("a picture of")


def test_every_kind_of_caption_is_met() -> None:
    plans = list(map(Scenes(MANY).plan, range(3000)))
    captions = [plan.caption for plan in plans]
    text = "\n".join(captions)
    for words in (*COLOURS, *POSITIONS, *RELATIONS, "small", "large", "a picture of", "gradient background"):
        assert words in text, words
    opened = sum(caption.startswith("a picture of ") for caption in captions) / 3000
    spoken = sum(caption.endswith(" background") for caption in captions) / 3000
    terse = sum(plan.caption.endswith(f" on {plan.colours[0]}") for plan in plans) / 3000
    assert opened == pytest.approx(0.1, abs=0.02)
    assert spoken == pytest.approx(0.8, abs=0.025)
    assert terse == pytest.approx(0.1 * 0.6, abs=0.015)  # a gradient has no terse name; the rest do not speak of it
    names = {emoji.name for emoji in vocabulary(256)}
    others = {word for words in synonyms(256).values() for word in words}
    assert all(any(name in caption for name in names | others) for caption in captions)
    assert sum(not any(name in caption for name in names) for caption in captions) > 30


def test_size_words_are_true_of_the_pixels() -> None:
    scenes = Scenes(SceneConfig(split="all", objects=(1.0,)))
    bounds = {"small": (0.42, 0.52), "large": (0.80, 0.95), "": (0.65, 0.79)}
    seen = set()
    for index in range(300):
        scene = scenes[index]
        word = next((word for word in ("small", "large") if re.search(rf"\b{word}\b", scene.caption)), "")
        side = float((scene.boxes[0][2:] - scene.boxes[0][:2]).max())
        assert bounds[word][0] < side < bounds[word][1]
        seen.add(word)
    assert seen == set(bounds)


def test_on_a_grid_a_drawing_is_the_same_wherever_it_stands() -> None:
    scenes = Scenes(SceneConfig(split="all", objects=(0.5, 0.5), gradients=0.0, grid=8))
    seen: dict[tuple[str, int], set[tuple[int, int]]] = {}
    for index in range(1000):
        plan = scenes.plan(index)
        for placement, box in zip(plan.placements, scenes[index].boxes, strict=True):
            assert placement.side in (30, 46, 56)
            key = (placement.emoji.name, placement.side)
            left, top = (round(float(edge) * 64) % 8 for edge in box[:2])
            seen.setdefault(key, set()).add((left, top))
    assert len(seen) > 400
    assert all(len(phases) == 1 for phases in seen.values())


def test_an_object_without_a_position_word_is_near_the_middle() -> None:
    scenes = Scenes(SceneConfig(split="all", objects=(1.0,)))
    silent = 0
    for index in range(300):
        scene = scenes[index]
        if not any(words in scene.caption for words in POSITIONS):
            silent += 1
            assert np.abs((scene.boxes[0][:2] + scene.boxes[0][2:]) / 2 - 0.5).max() < 0.14
    assert 100 < silent < 250


@pytest.mark.parametrize(
    ("noun", "phrase"),
    [
        ("red apple", "a red apple"),
        ("orange", "an orange"),
        ("umbrella", "an umbrella"),
        ("ugly duckling", "an ugly duckling"),
        ("unicorn", "a unicorn"),
        ("european", "a european"),
        ("euro banknote", "a euro banknote"),
        ("ewe", "a ewe"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("onion", "an onion"),
        ("glasses", "glasses"),
        ("french fries", "french fries"),
        ("dress", "a dress"),
        ("bus", "a bus"),
        ("cactus", "a cactus"),
        ("tennis", "a tennis"),
        ("smiling face with heart-eyes", "smiling face with heart-eyes"),
        ("bread", "bread"),
        ("honey pot", "a honey pot"),
        ("small octopus", "a small octopus"),
    ],
)
def test_with_article(noun: str, phrase: str) -> None:
    assert with_article(noun) == phrase


# What is held out


def shown(plan: Plan) -> list[bool]:
    """Whether each combination a plan shows is held out, worked out from the plan's parts."""
    names = [one.emoji.name for one in plan.placements]
    found = [held_out("colour", name, colour) for name in names for colour in plan.colours]
    found += [held_out("pair", a, b) for a, b in combinations(names, 2)]
    return found + [held_out("position", name, plan.position) for name in names if plan.position]


def test_one_in_ten_is_held_out() -> None:
    names = [emoji.name for emoji in vocabulary(256)]
    colour = [held_out("colour", name, colour) for name in names for colour in COLOURS]
    position = [held_out("position", name, position) for name in names for position in POSITIONS]
    pair = [held_out("pair", a, b) for a, b in combinations(names[:100], 2)]
    for found in (colour, position, pair):
        assert 0.08 < sum(found) / len(found) < 0.12


def test_the_split_never_moves() -> None:
    """Published numbers rest on it."""
    assert [colour for colour in COLOURS if held_out("colour", "dog face", colour)] == ["gray", "blue", "navy", "mint"]
    found = [position for position in POSITIONS if held_out("position", "red apple", position)]
    assert found == ["at the top", "in the bottom right corner"]
    assert [name for name in ("banana", "star", "owl", "horse") if held_out("pair", "red apple", name)] == ["star"]


def test_pairs_have_no_order_and_kinds_no_common_hash() -> None:
    names = [emoji.name for emoji in vocabulary(256)]
    pairs = list(zip(names, reversed(names), strict=True))
    assert [held_out("pair", a, b) for a, b in pairs] == [held_out("pair", b, a) for a, b in pairs]
    assert [held_out("pair", a, b) for a, b in pairs] != [held_out("colour", a, b) for a, b in pairs]


def test_training_scenes_never_show_what_is_held_out() -> None:
    scenes = Scenes(SceneConfig(objects=(0.3, 0.3, 0.2, 0.2), gradients=0.3))
    assert not any(any(shown(scenes.plan(index))) for index in range(4000))


def test_all_scenes_show_it() -> None:
    scenes = Scenes(SceneConfig(split="all"))
    plans = [scenes.plan(index) for index in range(2000)]
    assert 0.12 < sum(any(shown(plan)) for plan in plans) / 2000 < 0.4
    for kind in ("colour", "position", "pair"):
        assert any(
            held_out(kind, plan.placements[0].emoji.name, other)
            for plan in plans
            for other in (
                plan.colours
                if kind == "colour"
                else [plan.position]
                if kind == "position"
                else [one.emoji.name for one in plan.placements[1:]]
            )
            if other
        )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"objects": (0.5, 0.4)}, "expected one to four shares that sum to 1"),
        ({"objects": ()}, "one to four shares"),
        ({"grid": 0}, "a grid of 1 or more"),
        ({"seed": -1}, "a seed of 0 or more"),
        ({"sizes": (0.5, 0.4, 0.2)}, "three shares that sum to 1"),
        ({"sizes": (1.5, -0.5, 0.0)}, "three shares that sum to 1"),
        ({"objects": (0.2,) * 5}, "one to four shares"),
        ({"objects": (1.5, -0.5)}, "one to four shares"),
        ({"size": 16}, "scene size 16: emoji need 32 pixels or more"),
        ({"vocabulary": 300}, "vocabulary 300: expected 256 or 984"),
        ({"gradients": 1.2}, "gradients 1.2: expected a share from 0 to 1"),
    ],
)
def test_bad_configurations(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SceneConfig(**bad)


def test_sizes_come_in_the_shares_asked_for() -> None:
    scenes = Scenes(SceneConfig(objects=(1.0,), sizes=(0.1, 0.2, 0.7), grid=8))
    sides = [scenes.plan(index).placements[0].side for index in range(600)]
    assert set(sides) == {30, 46, 56}
    for side, share in ((30, 0.1), (46, 0.2), (56, 0.7)):
        assert sides.count(side) / 600 == pytest.approx(share, abs=0.06)
