"""Models by name and path, and networks in files."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

import tintype
from tintype.checkpoints.model_folder import digest, load_model, save_model
from tintype.checkpoints.native import load_network, read_header, save_network
from tintype.common.files import save_tensors
from tintype.models.classifier import Classifier, ClassifierConfig
from tintype.weights import embedded

EMBEDDED = Path(tintype.__file__).parent / "weights" / "default"
FILES = ("model.json", "unet.safetensors", "conditioner.safetensors", "autoencoder.safetensors")
SMALL = ClassifierConfig(num_classes=3, image_size=16, widths=(8, 8))


def test_the_embedded_model_is_whole_and_small() -> None:
    assert "default" in embedded()
    folder = Path(tintype.__file__).parent / "weights"
    sizes = [file.stat().st_size for file in folder.rglob("*.safetensors")]
    assert max(sizes) <= 16 * 2**20
    assert sum(sizes) <= 40 * 2**20


def test_a_model_saved_and_loaded_draws_the_same(tmp_path: Path) -> None:
    model = tintype.load("default")
    save_model(tmp_path / "copy", model, dtype=torch.float16)  # the weights are published in float16: nothing is lost
    copy = load_model(tmp_path / "copy")
    assert copy.config == model.config
    assert copy.digest == model.digest
    request = tintype.Request(prompt="a frog", seed=1, steps=2)
    assert tintype.generate(copy, request)[0].tobytes() == tintype.generate(model, request)[0].tobytes()


def test_a_saved_model_replaces_another_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never the weights of one beside those of the other, and nothing else is lost."""
    model, folder = tintype.load("default"), tmp_path / "copy"
    save_model(folder, model, dtype=torch.float16)
    (folder / "README.md").write_text("my card")
    model.conditioner.encoder.norm.weight.data[0] += 1

    def fail(_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tintype.checkpoints.model_folder.to_json", fail)
        with pytest.raises(OSError, match="No space left"):
            save_model(folder, model, dtype=torch.float16)
    assert load_model(folder).digest == tintype.load("default").digest
    save_model(folder, model, dtype=torch.float16)
    assert load_model(folder).digest != tintype.load("default").digest
    assert [entry.name for entry in tmp_path.iterdir()] == ["copy"]
    assert (folder / "README.md").read_text() == "my card"


def test_the_digest_changes_with_any_weight(tmp_path: Path) -> None:
    model = tintype.load("default")
    model.conditioner.encoder.norm.weight.data[0] += 1
    save_model(tmp_path / "other", model, dtype=torch.float16)
    assert load_model(tmp_path / "other").digest != model.digest


@pytest.mark.parametrize("name", FILES)
def test_the_digest_changes_with_any_file(tmp_path: Path, name: str) -> None:
    for file in FILES:
        (tmp_path / file).write_text("1")
    config = tintype.load("default").config
    before = digest(tmp_path, config)
    (tmp_path / name).write_text("2")
    assert digest(tmp_path, config) != before


@pytest.mark.parametrize("part", ["unet", "conditioner", "autoencoder"])
def test_a_folder_of_two_models_is_refused(tmp_path: Path, part: str) -> None:
    for file in FILES:
        (tmp_path / file).symlink_to(EMBEDDED / file)
    settings = json.loads((EMBEDDED / "model.json").read_text())
    settings[part] |= {"pooled": False} if part == "conditioner" else {"norm_groups": 4}
    (tmp_path / "model.json").unlink()
    (tmp_path / "model.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=rf"{part}\.safetensors is configured otherwise than model\.json says"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(settings | {"speed": 3}))
    with pytest.raises(ValueError, match=r"model\.json is damaged .*'speed'"):
        load_model(tmp_path)


def test_loaded_weights_lie_channels_last() -> None:
    model = tintype.load("default", device="cpu")
    assert isinstance(model.denoiser.network, torch.nn.Module)
    for network in (model.denoiser.network, model.autoencoder):
        filters = [weight for weight in network.parameters() if weight.ndim == 4]
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in filters)
        assert not all(weight.is_contiguous() for weight in filters)  # as those of 1 x 1 pixels are in both layouts


def test_a_network_file_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    network = Classifier(SMALL)
    save_network(path, "classifier", SMALL, network.state_dict(), dtype=torch.float32)
    assert read_header(path).kind == "classifier"
    loaded = load_network(path, "classifier", ClassifierConfig, Classifier)
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    with pytest.raises(ValueError, match="kind 'classifier'; expected 'unet'"):
        load_network(path, "unet", ClassifierConfig, Classifier)


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    state = Classifier(SMALL).state_dict()
    for change, words in (
        ({"head.bias": None}, "1 tensors are missing .'head.bias'"),
        ({"extra": torch.zeros(1)}, "1 are unexpected .'extra'"),
        ({"head.bias": torch.zeros(7)}, r"head.bias is \(7,\); expected \(3,\)"),
    ):
        changed = {name: value for name, value in (state | change).items() if value is not None}
        save_network(path, "classifier", SMALL, changed, dtype=torch.float32)
        with pytest.raises(ValueError, match=words):
            load_network(path, "classifier", ClassifierConfig, Classifier)


@pytest.mark.parametrize("wrong", [{"widths": "8"}, {"depth": 2}, {"norm_groups": 3}])
def test_a_configuration_that_does_not_fit_names_the_file(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = tmp_path / "classifier.safetensors"
    config = dataclasses.asdict(SMALL) | wrong
    save_network(path, "classifier", config, Classifier(SMALL).state_dict(), dtype=torch.float32)
    with pytest.raises(ValueError, match=r"classifier\.safetensors: the configuration in its header does not fit: "):
        load_network(path, "classifier", ClassifierConfig, Classifier)


def test_foreign_files_and_names_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_tensors(foreign, {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match="no tintype header"):
        read_header(foreign)
    with pytest.raises(ValueError, match=r"its tensors are named x; expected a Stable Diffusion"):
        tintype.load(str(foreign))
    with pytest.raises(ValueError, match=r"is one network of ours, unet; open the folder .*default"):
        tintype.load(EMBEDDED / "unet.safetensors")
    alone = tmp_path / "unet.safetensors"
    shutil.copy(EMBEDDED / "unet.safetensors", alone)
    with pytest.raises(ValueError, match=r"is one network of ours, unet; it makes no pictures alone"):
        tintype.load(alone)
    shutil.copytree(EMBEDDED, tmp_path / "run" / "model")
    with pytest.raises(ValueError, match=r"run is a folder without .*; open .*run/model$"):
        tintype.load(tmp_path / "run")
    with pytest.raises(ValueError, match=r"a folder without model_index\.json or model\.json"):
        tintype.load(str(tmp_path))
    with pytest.raises(ValueError, match="no model 'defualt'; expected default"):
        tintype.load("defualt")


def test_a_device_of_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="expected cpu or cuda"):
        tintype.load("default", device="gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without CUDA")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no CUDA device"):
        tintype.load("default", device="cuda")
