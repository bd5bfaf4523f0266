import importlib
import sys
from pathlib import Path

import pytest

from tintype.common.registry import functions_of, pick


def test_a_new_file_is_a_new_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "zoo"
    package.mkdir()
    (package / "__init__.py").write_text("def not_a_module_of_the_package(): ...\n")
    (package / "cats.py").write_text(
        "from os.path import join\ndef lion(): return 1\ndef _tail(): ...\nclass Paw: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        zoo = importlib.import_module("zoo")
        assert list(functions_of(zoo)) == ["lion"]  # not imported ones, private ones or classes
        (package / "apes.py").write_text("def gorilla(): return 2\ndef zebra(): return 3\n")
        importlib.invalidate_caches()
        found = functions_of(zoo)
        assert list(found) == ["gorilla", "lion", "zebra"]
        assert [function() for function in found.values()] == [2, 1, 3]
        (package / "birds.py").write_text("def lion(): return 4\n")
        importlib.invalidate_caches()
        with pytest.raises(ValueError, match=r"lion is defined twice: in zoo\.birds and in zoo\.cats"):
            functions_of(zoo)
        (package / "owl.py").write_text("def owl(): return 5\ndef lion(): return 6\n")
        importlib.invalidate_caches()
        assert list(functions_of(zoo, named_as_file=True)) == ["owl"]
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "zoo"]:
            del sys.modules[name]


def test_pick() -> None:
    entries = {"euler": 1, "heun": 2}
    assert pick("sampler", "heun", entries) == 2
    with pytest.raises(ValueError, match=r"unknown sampler 'eulre'; expected euler$"):
        pick("sampler", "eulre", entries)
