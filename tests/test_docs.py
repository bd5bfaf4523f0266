"""What the documentation tells as numbers is what was measured."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

from tintype.common.config import to_json
from tintype.recipes.compression_study import DESIGNS, FACTORS

ROOT = Path(__file__).parents[1]


def driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compression_study", ROOT / "benchmarks" / "compression_study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_the_compression_study_is_its_raw_numbers() -> None:
    study = json.loads((ROOT / "docs" / "compression.json").read_text())
    told = (ROOT / "docs" / "compression.md").read_text().splitlines()
    for row in driver().table(study["measured"], study["speed"]).splitlines():
        assert row in told
    assert study["designs"] == {str(factor): json.loads(json.dumps(to_json(DESIGNS[factor]))) for factor in FACTORS}
