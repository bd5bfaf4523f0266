from pathlib import Path

import numpy as np
from PIL import Image

from tintype.apps.cli import DONE, main
from tintype.conditioning.prompt import Framing
from tintype.data.prepared import Prepared


def test_what_was_made_smaller_tells_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, size in (("long", (96, 48)), ("high", (40, 100)), ("square", (16, 16))):
        Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save(tmp_path / "photos" / f"a {name} thing.png")
    expected = {
        "a long thing": Framing(original_size=(48, 96), target_size=(16, 16), crop=(0, 8)),
        "a high thing": Framing(original_size=(100, 40), target_size=(16, 16), crop=(12, 0)),
        "a square thing": None,
    }
    assert main(["prepare", str(tmp_path / "photos"), str(tmp_path / "out"), "--size", "16", "--json"]) == DONE
    prepared = Prepared(tmp_path / "out")
    found = {prepared[number].caption: prepared[number].framing for number in range(3)}
    assert found == expected
    assert prepared.sizes.tolist() == [[16, 16]] * 3
