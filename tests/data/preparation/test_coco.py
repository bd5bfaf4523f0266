"""COCO's boxes and sentences, masks in a parallel folder, and what becomes of them when pictures are resized."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sources import counts, encoded, files_below, findings, picture, prepared, write

from tintype.conditioning.layout import Box
from tintype.data.preparation.origins import SourceOptions
from tintype.data.preparation.processing import PictureOptions
from tintype.data.prepared import Prepared

IMAGES = [
    {"id": 7, "file_name": "007.png", "width": 40, "height": 20, "license": 3},
    {"id": 9, "file_name": "009.png", "width": 20, "height": 20},
    {"id": 11, "file_name": "gone.png", "width": 20, "height": 20},
]
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]


def annotation(id: int, image: int, category: int, bbox: object, **more: object) -> dict[str, object]:
    return {"id": id, "image_id": image, "category_id": category, "bbox": bbox, **more}


def coco(root: Path, boxes: list[dict[str, object]], said: list[dict[str, object]] | None = None) -> Path:
    instances = {"images": IMAGES, "annotations": boxes, "categories": CATEGORIES}
    files: dict[str, bytes | str] = {
        "annotations/instances_val2017.json": json.dumps(instances),
        "annotations/person_keypoints_val2017.json": json.dumps(instances),
        "val2017/007.png": encoded(picture(1, width=40, height=20)),
        "val2017/009.png": encoded(picture(2, width=20, height=20)),
    }
    if said is not None:
        files["annotations/captions_val2017.json"] = json.dumps({"images": IMAGES, "annotations": said})
    return write(root, files)


def corners(box: Box) -> tuple[float, ...]:
    return (box.region.left, box.region.top, box.region.width, box.region.height)


def test_boxes_have_classes_in_the_order_of_their_ids(tmp_path: Path) -> None:
    boxes = [
        annotation(1, 7, 18, [10, 5, 20, 10]),
        annotation(2, 7, 90, [30, 0, 20, 20], iscrowd=1),  # ends outside: cut at the border
        annotation(3, 9, 1, [0, 0, 20, 20]),
    ]
    said = [{"id": 5, "image_id": 7, "caption": "a dog"}, {"id": 6, "image_id": 7, "caption": "a brush "}]
    result = prepared(coco(tmp_path / "in", boxes, said), tmp_path / "out")
    data = Prepared(tmp_path / "out")
    assert result.info.options["kind"] == "coco"
    assert data.classes == ("person", "dog", "toothbrush")
    dog, brush = data[0].boxes
    assert (dog.label, dog.group, corners(dog)) == (1, False, (0.25, 0.25, 0.5, 0.5))
    assert (brush.label, brush.group, corners(brush)) == (2, True, (0.75, 0.0, 0.25, 1.0))
    assert [box.label for box in data[1].boxes] == [0]
    assert (data[0].caption, data[0].other_captions, data[1].caption) == ("a dog", ("a brush",), None)
    assert data.record(0)["boxes"][0]["class"] == "dog"
    assert data.record(0)["given"] == {"license": 3}
    assert sorted(findings(tmp_path / "out")) == [
        ("annotations/captions_val2017.json: image 11", "absent file"),
        ("annotations/instances_val2017.json: image 11", "absent file"),
        ("annotations/person_keypoints_val2017.json", "not used"),
        ("val2017/009.png", "no caption"),
    ]
    assert counts(result) == {"picture": (2, 2, 0), "row": (8, 6, 2), "box": (3, 3, 0), "file": (3, 2, 1)}


def test_boxes_that_are_none_are_listed(tmp_path: Path) -> None:
    boxes = [
        annotation(1, 7, 18, [10, 5, 20, 10]),
        annotation(2, 7, 18, [10, 5, 0, 10]),
        annotation(3, 7, 18, [10, 5, 20]),
        annotation(4, 7, 18, "everywhere"),
        annotation(5, 7, 18, [10, 5, float("nan"), 1]),
        annotation(6, 7, 5, [10, 5, 20, 10]),
        annotation(7, 8, 18, [10, 5, 20, 10]),
        annotation(8, 11, 18, [10, 5, 20, 10]),
        annotation(9, 7, 18, [50, 5, 20, 10]),
    ]
    root = coco(tmp_path / "in", boxes)
    write(
        root,
        {
            "annotations/extra.json": '{"images": [',
            "annotations/instances_more.json": '{"annotations": [{}], "images": [{}]}',
        },
    )
    result = prepared(root, tmp_path / "out")
    of_boxes = [(item.rpartition(" ")[2], reason) for item, reason in findings(tmp_path / "out") if "box" in reason]
    assert sorted(of_boxes) == [
        ("0", "broken box"),
        *((str(number), "broken box") for number in range(2, 8)),
        ("8", "box of absent file"),
        ("9", "box outside"),
    ]
    assert counts(result)["box"] == (10, 1, 9)
    assert counts(result)["row"] == (4, 2, 2)


def test_annotations_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    root = coco(tmp_path / "in", [])
    other = {"images": [], "annotations": [], "categories": [{"id": 18, "name": "cat"}]}
    write(root, {"annotations/instances_b.json": json.dumps(other)})
    with pytest.raises(ValueError, match="category 18 is 'dog', in another file 'cat'"):
        prepared(root, tmp_path / "out")
    named = SourceOptions(annotations=("annotations/instances_val2017.json",))
    assert prepared(root, tmp_path / "out", source=named).info.classes == ("person", "dog", "toothbrush")
    with pytest.raises(ValueError, match="no such file"):
        prepared(root, tmp_path / "new", source=SourceOptions(annotations=("x.json",)))
    write(tmp_path / "plain", {"a.png": encoded(picture())})
    with pytest.raises(ValueError, match="has no COCO annotations; expected a JSON file"):
        prepared(tmp_path / "plain", tmp_path / "new", source=SourceOptions(kind="coco"))


def test_resizing_takes_boxes_and_masks_along(tmp_path: Path) -> None:
    """A red rectangle, its box and its mask: after resizing and cropping all three still agree."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[4:16, 14:24] = (255, 0, 0)
    classes = (pixels[..., 0] > 0).astype(np.uint8) * 18
    boxes = [annotation(1, 7, 18, [14, 4, 10, 12]), annotation(2, 7, 1, [0, 0, 6, 20])]
    root = coco(tmp_path / "in", boxes)
    write(
        root,
        {
            "val2017/007.png": encoded(Image.fromarray(pixels)),
            "stuffthingmaps/val2017/007.png": encoded(Image.fromarray(classes)),
        },
    )
    prepared(root, tmp_path / "out", pictures=PictureOptions(size=80))
    data = Prepared(tmp_path / "out")
    sample = data[0]
    assert sample.picture.shape == (80, 80, 3)
    assert sample.mask.shape == (80, 80)
    seen = np.argwhere(sample.mask == 18)
    top, left = seen.min(0)
    bottom, right = seen.max(0) + 1
    (box,) = sample.boxes  # the other one is outside the crop
    assert corners(box) == pytest.approx((left / 80, top / 80, (right - left) / 80, (bottom - top) / 80))
    assert (left, top, right, bottom) == (4 * 4, 4 * 4, 14 * 4, 16 * 4)
    red = sample.picture[..., 0] > 127
    assert (red == (sample.mask == 18)).mean() > 0.99
    assert data.record(0)["crop"] == {"left": 0.25, "top": 0.0, "width": 0.5, "height": 1.0}
    assert (data.record(0)["original_width"], data.record(0)["original_height"]) == (40, 20)
    told = findings(tmp_path / "out")
    assert ("val2017/007.png", "box out of crop") in told
    assert ("val2017/009.png", "no mask") in told
    assert ("val2017/007.png", "enlarged") in told


def test_two_masks_of_one_name_are_both_counted(tmp_path: Path) -> None:
    one, other = (encoded(Image.new("L", (12, 10), value)) for value in (1, 2))
    files: dict[str, bytes | str] = {"images/a.jpg": encoded(picture(), "JPEG"), "masks/a.PNG": one}
    root = write(tmp_path / "in", files | {"masks/a.png": other})
    result = prepared(root, tmp_path / "out", source=SourceOptions(captions="none"))
    assert int(Prepared(tmp_path / "out")[0].mask.max()) == 1
    assert findings(tmp_path / "out") == [("a.png", "duplicate mask")]
    assert sum(found for found, _, _ in counts(result).values()) == files_below(root).total() == 3


@pytest.mark.parametrize("where", ["masks", "elsewhere"])
def test_masks_in_a_parallel_folder(tmp_path: Path, where: str) -> None:
    classes = {name: np.full((10, 12), value, np.uint8) for value, name in enumerate(("a", "b", "c", "d"))}
    folder = f"in/{where}" if where == "masks" else where
    flat = write(
        tmp_path,
        {f"in/images/x/{name}.png": encoded(picture(number)) for number, name in enumerate("abcde")}
        | {f"{folder}/x/{name}.png": encoded(Image.fromarray(one)) for name, one in classes.items()}
        | {
            "in/images/x/c.png": b"no picture",
            f"{folder}/x/b.png": encoded(Image.new("L", (3, 3))),
            f"{folder}/x/d.png": encoded(picture()),
            f"{folder}/x/z.png": encoded(Image.new("L", (3, 3))),
            f"{folder}/x/list.txt": "x",
        },
    )
    masks = None if where == "masks" else str(tmp_path / where)
    result = prepared(flat / "in", tmp_path / "out", source=SourceOptions(masks=masks, captions="none"))
    data = Prepared(tmp_path / "out")
    assert [data.record(index)["origin"][-5] for index in range(4)] == ["a", "b", "d", "e"]
    assert np.array_equal(data[0].mask, classes["a"])
    assert [data[index].mask for index in (1, 2, 3)] == [None] * 3
    expected = [
        ("images/x/c.png", "not a picture"),
        ("images/x/c.png", "mask of picture left out"),
        ("images/x/b.png", "mask of another size"),
        ("images/x/d.png", "not a class map"),
        ("images/x/e.png", "no mask"),
        ("x/z.png", "mask without picture"),
    ]
    listed = [one for one in findings(tmp_path / "out") if not one[0].endswith("list.txt")]
    assert sorted(listed) == sorted(expected)
    assert counts(result)["mask"] == (5, 1, 4)
    total = files_below(tmp_path / "in").total() + (files_below(tmp_path / where).total() if where != "masks" else 0)
    assert sum(found for found, _, _ in counts(result).values()) == total


@pytest.mark.parametrize(("crop", "shape"), [("center", (8, 8, 3)), ("none", (8, 16, 3))])
def test_sizes_and_crops(tmp_path: Path, crop: str, shape: tuple[int, ...]) -> None:
    wide = picture(width=64, height=32)
    exact = encoded(picture(width=shape[1], height=8), "JPEG")
    root = write(
        tmp_path / "in",
        {"wide.png": encoded(wide), "small.png": encoded(picture(width=8, height=4)), "exact.jpg": exact},
    )
    prepared(
        root,
        tmp_path / "out",
        pictures=PictureOptions(size=8, crop=crop, encoding="jpg"),
        source=SourceOptions(captions="none"),
    )
    data = Prepared(tmp_path / "out")
    assert {data[index].picture.shape for index in range(3)} == {shape}
    assert findings(tmp_path / "out") == [("small.png", "enlarged")]
    assert exact in (tmp_path / "out" / "00000.tar").read_bytes()  # nothing to be done: its own bytes
    assert [member for member in _names(tmp_path / "out" / "00000.tar") if not member.endswith("json")] == [
        "000000000.jpg", "000000001.jpg", "000000002.jpg",
    ]  # fmt: skip


def _names(path: Path) -> list[str]:
    import tarfile

    with tarfile.open(path) as tar:
        return tar.getnames()


def test_numbers_beyond_all_floats_cost_only_themselves(tmp_path: Path) -> None:
    far = 10**400
    root = coco(tmp_path / "in", [annotation(1, 7, 18, [0, 0, far, 1]), annotation(2, 9, 1, [0, 0, 20, 20])])
    prepared(root, tmp_path / "out")
    assert [reason for _, reason in findings(tmp_path / "out") if "box" in reason] == ["broken box"]
    assert [len(Prepared(tmp_path / "out")[number].boxes) for number in range(2)] == [0, 1]
