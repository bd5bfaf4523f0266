"""Latents in shards: what was encoded, whole, whoever made them and however often they were stopped."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tintype.common.files import load_tensors, save_tensors
from tintype.conditioning.layout import Box, Region
from tintype.conditioning.prompt import Framing
from tintype.data.buckets import Bucketed, BucketOrder
from tintype.data.encoding import Alone, make_latents
from tintype.data.latents import StoredLatents, encoder_digest
from tintype.data.samples import Batches, Sample, labels, latents
from tintype.data.sources import to_tensor
from tintype.data.views import AndMirrored, Part
from tintype.models.autoencoder import Autoencoder, AutoencoderConfig

CONFIG = AutoencoderConfig(latent_channels=4, width=8, mult=(1, 2), num_blocks=1, patch_size=4, norm_groups=4)
SHARD = 2048  # bytes: of 8 x 8 latents in float16 two samples


class Pictures:
    """Noise of two sizes in turn, each with all that can be known of it."""

    def __init__(self, count: int = 7) -> None:
        self.sizes = np.array([(64, 64) if number % 3 else (64, 32) for number in range(count)], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        height, width = self.sizes[index].tolist()
        drawn = np.random.default_rng(index)
        return Sample(
            picture=drawn.integers(0, 256, (height, width, 3), dtype=np.uint8),
            mask=drawn.integers(0, 9, (height, width), dtype=np.uint8),
            caption=f"número {index}",
            other_captions=("noise",) * (index % 2),
            label=index,
            boxes=(Box(label=3, region=Region(left=0.125, top=0.25, width=0.5, height=0.3), inside=True),),
            framing=Framing(original_size=(640, 10 * index + 8), crop=(0, index), target_size=(height, width)),
        )


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    return random_autoencoder(0)


def random_autoencoder(seed: int, **changes: object) -> Autoencoder:
    torch.manual_seed(seed)
    made = Autoencoder(AutoencoderConfig(**({**vars_of(CONFIG)} | changes))).eval()
    with torch.no_grad():
        for value in made.parameters():
            value.add_(torch.randn_like(value), alpha=0.05)
    return made


def vars_of(config: AutoencoderConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in AutoencoderConfig.__dataclass_fields__}


def make(out: Path, autoencoder: Autoencoder, samples: object = None, **changes: object) -> StoredLatents:
    settings = {"source": "pictures", "shard_bytes": SHARD, "batch_size": 2, "progress": False} | changes
    make_latents(out, Pictures() if samples is None else samples, autoencoder, **settings)
    return StoredLatents(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, autoencoder: Autoencoder) -> Path:
    out = tmp_path_factory.mktemp("stored") / "latents"
    make(out, autoencoder)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_stored_is_what_was_encoded(folder: Path, autoencoder: Autoencoder) -> None:
    stored, pictures = StoredLatents(folder, autoencoder=autoencoder), Pictures()
    assert len(stored) == 7
    for number in (3, 0, 6, 1, 2, 5, 4):
        sample, given = stored[number], pictures[number]
        with torch.inference_mode():
            posterior = autoencoder.encode(to_tensor([given.picture]))
        assert sample.mean.dtype == sample.logvar.dtype == torch.float16
        assert tuple(sample.mean.shape[1:]) == tuple(stored.sizes[number].tolist()) == tuple(posterior.mean.shape[2:])
        torch.testing.assert_close(sample.mean.float(), posterior.mean[0], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(sample.logvar.float(), posterior.logvar[0], rtol=1e-3, atol=1e-4)
        assert np.array_equal(sample.mask, given.mask)
        for name in ("caption", "other_captions", "label", "boxes", "framing"):
            assert getattr(sample, name) == getattr(given, name)


def test_float32_keeps_every_bit(tmp_path: Path, autoencoder: Autoencoder) -> None:
    part = Part(Pictures(), [1, 2])
    stored = make(tmp_path / "latents", autoencoder, part, precision="float32", shard_bytes=2 * SHARD)
    with torch.inference_mode():
        posterior = autoencoder.encode(to_tensor([Pictures()[number].picture for number in (1, 2)]))
    for number in range(2):
        assert torch.equal(stored[number].mean, posterior.mean[number])
        assert torch.equal(stored[number].logvar, posterior.logvar[number])


def test_samples_drawn_from_what_is_stored_have_the_posterior_s_statistics(
    folder: Path, autoencoder: Autoencoder
) -> None:
    sample = StoredLatents(folder)[1]
    given = latents([sample], torch.Generator())
    noise = torch.randn(20_000, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = given["mean"] + given["std"] * noise
    with torch.inference_mode():
        posterior = autoencoder.encode(to_tensor([Pictures()[1].picture]))
    error = (drawn.mean(dim=0) - posterior.mean[0]) / posterior.std[0]
    assert error.abs().max() < 5 / math.sqrt(20_000) + 0.01  # five standard errors, and float16
    assert (drawn.std(dim=0) / posterior.std[0] - 1).abs().max() < 5 / math.sqrt(40_000) + 0.005


def test_statistics_are_those_of_samples(folder: Path, autoencoder: Autoencoder) -> None:
    stored, values = StoredLatents(folder), [[] for _ in range(4)]
    for number in range(7):
        sample = stored[number]
        noise = torch.randn(2000, *sample.mean.shape, generator=torch.Generator().manual_seed(number))
        drawn = sample.mean.float() + (0.5 * sample.logvar.float()).exp() * noise
        for channel in range(4):
            values[channel].append(drawn[:, channel].flatten())
    every = [torch.cat(one).double() for one in values]
    assert stored.statistics.mean == pytest.approx([float(one.mean()) for one in every], abs=5e-3)
    assert stored.statistics.std == pytest.approx([float(one.std()) for one in every], rel=3e-3)
    assert stored.statistics.overall_std == pytest.approx(float(torch.cat(every).std()), rel=3e-3)
    wrapped = stored.space(per_channel=True).wrap(torch.stack(every)[:, None])[:, 0]
    assert wrapped.mean(dim=1).abs().max() < 1e-2
    assert (wrapped.std(dim=1) - 1).abs().max() < 1e-2
    assert stored.space(per_channel=False).scale == (1 / stored.statistics.overall_std,)


def test_shards_are_of_one_size_and_no_larger_than_asked(folder: Path) -> None:
    stored = StoredLatents(folder)
    assert [shard.samples for shard in stored.shards] == [3, 2, 2]
    assert [shard.size for shard in stored.shards] == [(8, 4), (8, 8), (8, 8)]
    for shard in stored.shards:
        tensors = load_tensors(folder / shard.file)
        assert tensors["mean"].nbytes + tensors["logvar"].nbytes <= SHARD
        assert {tuple(stored.sizes[number].tolist()) for number in tensors["index"].tolist()} == {shard.size}
    assert sorted(
        number for shard in stored.shards for number in load_tensors(folder / shard.file)["index"].tolist()
    ) == [*range(7)]


def test_batches_of_one_size_come_from_shards(folder: Path) -> None:
    stored = StoredLatents(folder)
    source = Batches(stored, [latents, labels], seed=0, order=BucketOrder(stored.sizes, batch_size=2, seed=0))
    for number in range(8):
        batch = source.batch(2 * number, 2)
        assert {tuple(stored.sizes[one].tolist()) for one in batch["label"].tolist()} == {
            tuple(batch["mean"].shape[2:])
        }


def test_a_vq_latent_is_a_point(tmp_path: Path) -> None:
    codes = random_autoencoder(1, codebook_size=32)
    stored = make(tmp_path / "latents", codes)
    assert "logvar" not in load_tensors(tmp_path / "latents" / stored.shards[0].file)
    batch = latents([stored[1], stored[2]], torch.Generator())
    assert not batch["std"].any()
    with torch.inference_mode():
        expected = codes.encode(to_tensor([Pictures()[number].picture for number in (1, 2)])).mean
    torch.testing.assert_close(batch["mean"], expected, rtol=1e-3, atol=1e-4)
    every = torch.cat(
        [stored[number].mean.float().transpose(0, 1).flatten(1) for number in range(0)] or [batch["mean"]]
    )
    assert every.isfinite().all()
    assert all(math.isfinite(one) and one > 0 for one in stored.statistics.std)


class Masked(Part):
    """Pictures of which these numbers have no mask."""

    without = (0, 1)

    def __getitem__(self, index: int, /) -> Sample:
        sample = super().__getitem__(index)
        return dataclasses.replace(sample, mask=None) if index in self.without else sample


def test_a_missing_mask_costs_nothing_but_itself(tmp_path: Path, autoencoder: Autoencoder) -> None:
    stored = make(tmp_path / "latents", autoencoder, Masked(Pictures(), range(7)))
    assert stored.without_mask.tolist() == [0, 1]
    for number in range(7):
        mask = stored[number].mask
        assert mask is None if number in (0, 1) else np.array_equal(mask, Pictures()[number].mask)
    assert stored[0].caption == "número 0"


def test_whole_shards_without_masks_are_counted_too(tmp_path: Path, autoencoder: Autoencoder) -> None:
    class Narrow(Masked):
        without = (0, 3, 6)  # all of one size, and so of its shards

    assert make(tmp_path / "latents", autoencoder, Narrow(Pictures(), range(7))).without_mask.tolist() == [0, 3, 6]

    class Bare(Masked):
        without = tuple(range(7))

    bare = make(tmp_path / "bare", autoencoder, Bare(Pictures(), range(7)))
    assert not len(bare.without_mask)  # none is missing where there are none
    assert bare[3].mask is None


def test_mirrored_pictures_are_encoded_themselves(tmp_path: Path, autoencoder: Autoencoder) -> None:
    stored = make(tmp_path / "latents", autoencoder, AndMirrored(Pictures()))
    assert len(stored) == 14
    picture = np.ascontiguousarray(Pictures()[4].picture[:, ::-1])
    with torch.inference_mode():
        expected = autoencoder.encode(to_tensor([picture])).mean[0]
    torch.testing.assert_close(stored[9].mean.float(), expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(expected, stored[8].mean.float().flip(2), atol=1e-2)  # why they are not mirrored latents
    assert stored[9].boxes[0].region.left == pytest.approx(1 - 0.125 - 0.5)
    assert np.array_equal(stored[9].mask, stored[8].mask[:, ::-1])


def test_pictures_in_buckets_tell_what_was_cut(tmp_path: Path, autoencoder: Autoencoder) -> None:
    stored = make(tmp_path / "latents", autoencoder, Bucketed(Pictures(), [(32, 32), (48, 24)]))
    assert {tuple(one) for one in stored.sizes.tolist()} == {(4, 4), (6, 3)}
    framing = stored[1].framing
    assert framing is not None
    assert (framing.original_size, framing.target_size) == ((640, 18), (32, 32))


# Stopped, resumed, shared out, damaged


def test_what_was_stopped_goes_on_to_the_same_bytes(
    tmp_path: Path, folder: Path, autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, encode, calls = tmp_path / "latents", Autoencoder.encode, []

    def stopped(self: Autoencoder, image: torch.Tensor) -> object:
        calls.append(len(image))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(self, image)

    monkeypatch.setattr(Autoencoder, "encode", stopped)
    with pytest.raises(KeyboardInterrupt):
        make(out, autoencoder)
    with pytest.raises(ValueError, match="is not finished; run the same command again"):
        StoredLatents(out)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("latents-*")}
    assert len(kept) == 2
    calls.clear()
    calls += [0] * 5
    make(out, autoencoder)
    assert len(calls) == 5 + 1  # the last shard alone
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(out) == contents(folder)
    monkeypatch.setattr(Autoencoder, "encode", None)
    make(out, autoencoder)  # finished: nothing to do


@pytest.mark.parametrize("harm", ["flip", "cut", "other"])
def test_a_damaged_shard_is_made_again_when_going_on(
    tmp_path: Path, folder: Path, autoencoder: Autoencoder, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "latents"
    make(out, autoencoder)
    unfinished = json.loads((out / "latents.json").read_text()) | {"shards": [], "statistics": None}
    (out / "latents.json").write_text(json.dumps(unfinished))
    shard = out / "latents-00001.safetensors"
    whole = shard.read_bytes()
    if harm == "other":
        make(tmp_path / "other", autoencoder, source="other pictures")
        shard.write_bytes((tmp_path / "other" / shard.name).read_bytes())
    else:
        shard.write_bytes(flipped(whole, len(whole) // 2) if harm == "flip" else whole[:-100])
    make(out, autoencoder)
    assert contents(out) == contents(folder)
    assert "latents-00001.safetensors is damaged or of other latents; it is made again" in caplog.text


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_processes_share_the_shards_out(tmp_path: Path, folder: Path, autoencoder: Autoencoder) -> None:
    out, seen = tmp_path / "latents", []

    class Second(Alone):
        """Comes to the folder when the first process has begun it."""

    class First(Alone):
        def wait(self) -> None:
            seen.append(sorted(path.name for path in out.glob("latents-0*")))
            if len(seen) == 2:  # its own shards are done: now the other one's
                make_as(Second(1, 2))

    def make_as(process: Alone) -> None:
        settings = {"shard_bytes": SHARD, "batch_size": 2, "progress": False}
        make_latents(out, Pictures(), autoencoder, source="pictures", processes=process, **settings)

    make_as(First(0, 2))
    assert seen[:2] == [[], ["latents-00000.safetensors", "latents-00002.safetensors"]]
    assert contents(out) == contents(folder)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_a_flipped_bit_is_found_by_name(tmp_path: Path, autoencoder: Autoencoder, place: float) -> None:
    out = tmp_path / "latents"
    stored = make(out, autoencoder)
    shard = out / "latents-00002.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(flipped(whole, int(place * len(whole))))
    assert stored.verify() == ["latents-00002.safetensors"]
    damaged = load_tensors(out / "index.safetensors")["shard"].tolist().index(2)
    reader = StoredLatents(out)
    assert reader[1].label == 1  # another shard is as good as before
    with pytest.raises(ValueError, match=r"latents-00002\.safetensors: the shard is damaged"):
        reader[damaged]
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"latents-00002\.safetensors: the shard has \d+ bytes instead of"):
        reader[damaged]
    shard.unlink()
    with pytest.raises(ValueError, match=r"00002\.safetensors: the shard cannot be read .*remove latents\.json"):
        reader[damaged]
    (out / "latents.json").unlink()  # as it says
    make(out, autoencoder)
    assert shard.read_bytes() == whole


def test_another_index_is_found(tmp_path: Path, folder: Path, autoencoder: Autoencoder) -> None:
    out = tmp_path / "latents"
    stored = make(out, autoencoder)
    index = load_tensors(out / "index.safetensors")
    index["row"] = index["row"].flip(0)  # every number is one that is there, and of another sample
    save_tensors(out / "index.safetensors", index)
    assert stored.verify() == ["index.safetensors"]
    with pytest.raises(ValueError, match=r"index\.safetensors is not the index .*remove latents\.json and run"):
        StoredLatents(out)
    (out / "latents.json").unlink()
    make(out, autoencoder)
    assert contents(out) == contents(folder)
    told = json.loads((out / "latents.json").read_text())
    del told["index"]
    (out / "latents.json").write_text(json.dumps(told))  # as before there was a checksum
    assert StoredLatents(out).verify() == []


# What is refused


def test_latents_of_another_encoder_are_refused_and_another_decoder_is_not(
    folder: Path, autoencoder: Autoencoder
) -> None:
    other = random_autoencoder(5)
    with pytest.raises(ValueError, match="expected the same encoder"):
        StoredLatents(folder, autoencoder=other)
    again = random_autoencoder(0)
    with torch.no_grad():
        again.decoder.conv_in.weight += 1
        again.post_quant_conv.weight += 1
    assert encoder_digest(again) == encoder_digest(autoencoder)
    StoredLatents(folder, autoencoder=again)
    with torch.no_grad():
        again.quant_conv.weight[0, 0] += 1e-6
    assert encoder_digest(again) != encoder_digest(autoencoder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "others"}, "they are of pictures, asked for are those of others;"),
        ({"precision": "float32"}, r"they are float16, asked for is float32 \(--dtype\);"),
        ({"samples": Pictures(8)}, "they are of 7 samples, asked for are 8;"),
        ({"shard_bytes": 2 * SHARD}, r"at most 0.00195312 MiB, asked for are 0.00390625 \(--shard-mib\);"),
    ],
)
def test_a_folder_of_other_latents_is_left_alone_unless_told(
    tmp_path: Path, folder: Path, autoencoder: Autoencoder, changes: dict[str, object], said: str
) -> None:
    before = contents(folder)
    with pytest.raises(ValueError, match=f"holds other latents: .*{said}"):
        make(folder, autoencoder, **changes)
    assert contents(folder) == before
    out = tmp_path / "latents"
    make(out, autoencoder)
    make(out, autoencoder, **changes, replace=True)
    fresh = tmp_path / "fresh"
    make(fresh, autoencoder, **changes)
    assert contents(out) == contents(fresh) != before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, autoencoder: Autoencoder) -> None:
    (tmp_path / "novel.txt").write_text("dear")
    for replace in (False, True):
        with pytest.raises(ValueError, match="holds something else; expected an empty folder"):
            make(tmp_path, autoencoder, replace=replace)
    with pytest.raises(ValueError, match=r"latents\.json cannot be read .*make it with `tintype latents`"):
        StoredLatents(tmp_path)
    (tmp_path / "latents.json").write_text('{"contents": {"format": 99}}')
    with pytest.raises(ValueError, match="is of format 99; this tintype reads 1"):
        StoredLatents(tmp_path)


def test_latents_beyond_float16_ask_for_float32(tmp_path: Path) -> None:
    large = random_autoencoder(0)
    with torch.no_grad():
        large.quant_conv.weight[:4] *= 1e6
    with pytest.raises(ValueError, match=r"sample \d: its latent reaches .*float16 ends at 65504; store float32"):
        make(tmp_path / "latents", large)
    assert make(tmp_path / "more", large, precision="float32")[0].mean.abs().max() > 65504
    with torch.no_grad():
        large.quant_conv.weight[0] = torch.nan
    with pytest.raises(ValueError, match=r"sample \d: its latent is not finite"):
        make(tmp_path / "none", large, precision="float32")


def test_sizes_that_do_not_fit_are_refused_before_any_work(tmp_path: Path, autoencoder: Autoencoder) -> None:
    odd = Pictures()
    odd.sizes = odd.sizes + np.array([[0, 0]] * 5 + [[3, 0]] * 2, dtype=np.int32)
    with pytest.raises(
        ValueError, match=r"sample 5 \(of 2\) is 64x67; expected sides that are multiples of 8: .*--buckets"
    ):
        make(tmp_path / "latents", autoencoder, odd)
    with pytest.raises(ValueError, match="no samples in pictures"):
        make(tmp_path / "latents", autoencoder, Part(Pictures(), []))
    assert not (tmp_path / "latents").exists()

    class Wrong(Part):
        def __getitem__(self, index: int, /) -> Sample:
            return self.samples[(index + 1) % 7]

    with pytest.raises(ValueError, match=r"sample 0: picture of \(64, 64\), told to be \(32, 64\); prepare it again"):
        make(tmp_path / "latents", autoencoder, Wrong(Pictures(), range(7)))
