"""python -m benchmark.evaluate for somebody who has a file: what it says, measures, keeps, refuses and takes up again."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.data import split_labels
from benchmark.data.datasets import find, prepare
from benchmark.data.split import split
from benchmark.errors import InputError
from benchmark.evaluate.__main__ import NORMALIZATIONS, main
from benchmark.evaluate.protocols import PROTOCOLS
from benchmark.evaluate.subject import Place, Subject
from benchmark.store.record import read_record
from methods.encoders import EncoderConfig, build_encoder
from tests.evaluate.checkpoints import stirred

ENCODER = EncoderConfig(name="resnet10", stem="stride2", width=0.25)
SIZES = ["--train-images", "300", "--test-images", "100", "--held-out", "0.2"]
ROOT = Path(__file__).resolve().parents[2]


def own_state(seed: int = 0, config: EncoderConfig = ENCODER) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(stirred(build_encoder(config)[0]).state_dict())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the drawn images converted once for all tests."""
    folder = tmp_path_factory.mktemp("cache")
    prepare(find("shapes", None, folder), folder)
    return folder


@pytest.fixture
def file(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkpoint of MoCo's, as its code saves it."""
    monkeypatch.setenv("RETABLE_CACHE", str(cache))
    monkeypatch.delenv("RETABLE_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    state = {f"module.encoder_q.{key}": value for key, value in own_state().items()}
    state |= {f"module.encoder_k.{key}": value + 1 for key, value in own_state().items()}
    torch.save({"epoch": 200, "state_dict": state | {"module.queue": torch.zeros(4)}, "optimizer": {}}, tmp_path / "moco.pth")
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    threads = torch.get_num_threads()
    yield tmp_path / "moco.pth"
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(file: Path, *more: str) -> int:
    return main([str(file), "--encoder", "stem=stride2", "--device", "cpu", *more])


def measure(file: Path, *more: str) -> int:
    return run(file, "--dataset", "shapes", *SIZES, *more)


def records(file: Path, out: Path | None = None) -> dict[str, dict[str, Any]]:
    folder = out or file.with_name(f"{file.name}.evaluations")
    return {path.stem: read_record(path) for path in sorted(folder.glob("*-????????????.json"))}


def words(text: str) -> str:
    return " ".join(text.split())


def test_it_says_what_is_in_a_file_and_measures_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file) == 0
    said = capsys.readouterr().out
    assert "moco: the query encoder" in said and "resnet10, width 0.25, stem stride2" in said
    for row in (
        "taken conv1, bn1, layer1",
        "left aside key encoder: encoder_k.conv1",
        "left aside queue: queue",
        "epoch, optimizer",
    ):
        assert row in words(said), row
    assert max(len(line) for line in said.splitlines()) <= 80
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_record_for_each_protocol_says_what_was_measured_on_what(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(file, "--protocol", "knn", "collapse", "linear", "--set", "knn.k=20", "--seed", "3", "--threads", "1") == 0
    said = words(capsys.readouterr().out)
    found = {record["stage"]: record for record in records(file).values()}
    assert set(found) == {"knn", "collapse", "linear"}
    record = found["knn"]
    assert record["protocol"]["k"] == 20 and record["status"] == "done" and record["seed"] == 3
    assert record["checkpoint"]["file"] == "moco.pth" and record["checkpoint"]["layout"] == "moco"
    assert len(record["checkpoint"]["sha256"]) == 64 and record["checkpoint"]["encoder"]["name"] == "resnet10"
    assert record["data"] | {"content": ""} == {
        "name": "shapes", "content": "", "image_size": 32, "train_images": 300, "test_images": 100, "held_out": 0.2,
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    assert record["provenance"]["hardware"]["threads"] == 1 and "git" in record["provenance"]
    assert str(file.parent) not in json.dumps(record), "a record names no folder of the machine it was made on"
    for name, one in found.items():
        for metric, value in one["metrics"].items():
            assert metric in said and (f"{value:.2f}" in said or f"{value:.3g}" in said), name
    assert f"l2 {found['linear']['chosen']['l2']:.2f}" in said or f"l2 {found['linear']['chosen']['l2']:.3g}" in said


def test_the_numbers_are_those_of_the_network_in_the_file(file: Path, cache: Path, tmp_path: Path) -> None:
    assert measure(file, "--protocol", "knn", "collapse") == 0
    found = {record["stage"]: record for record in records(file).values()}
    dataset = prepare(find("shapes", None, cache), cache)
    mean, std = NORMALIZATIONS["imagenet"]
    dataset = dataclasses.replace(dataset, mean=mean, std=std)
    parts = split(split_labels(dataset, "train"), split_labels(dataset, "test"), 300, 100, 0.2)

    class Network:
        encoder = build_encoder(ENCODER)[0]

        def features(self, images: Tensor) -> Tensor:
            return self.encoder(images)

        project = features

        def eval(self) -> None:
            self.encoder.eval()

    network = Network()
    network.encoder.load_state_dict(own_state())
    subject = Subject(network, dataset, parts, 32, ["rgb"], torch.device("cpu"))  # type: ignore[arg-type]
    for name in found:  # the kNN's, and numbers that the least change of the pixels would show in
        expected = PROTOCOLS[name](subject, found[name]["protocol"], Place(tmp_path, name))
        assert found[name]["metrics"] == pytest.approx(expected.metrics, rel=1e-4)
    assert found["knn"]["protocol"]["k"] == 200 and len(parts.train) == 240


def test_what_is_finished_is_not_repeated(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(file, "--protocol", "knn") == 0
    (path,) = file.with_name(f"{file.name}.evaluations").glob("knn-*.json")
    first = path.read_bytes()
    capsys.readouterr()
    assert measure(file, "--protocol", "knn", "collapse") == 0
    assert path.read_bytes() == first and capsys.readouterr().out.count("had it") == 1
    assert measure(file, "--protocol", "knn", "--again") == 0
    assert path.read_bytes() != first and len(records(file)) == 2


def test_whatever_could_change_a_number_makes_another_record(file: Path) -> None:
    assert measure(file, "--protocol", "knn") == 0
    changes = (
        ["--set", "knn.k=5"], ["--seed", "1"], ["--normalize", "half"],
        ["--normalize", "none"], ["--normalize", "dataset"], ["--image-size", "40"],
        ["--held-out", "0.1"],
    )  # fmt: skip
    for number, change in enumerate(changes, 2):
        assert measure(file, "--protocol", "knn", *change) == 0
        assert len(records(file)) == number, change
    torch.save({f"module.encoder_q.{k}": v for k, v in own_state(1).items()}, file)
    torch.save({"state_dict": torch.load(file, weights_only=True)}, file)
    assert measure(file, "--layout", "moco", "--protocol", "knn") == 0
    assert len(records(file)) == len(changes) + 2


def test_out_and_a_name_that_is_kept_free_of_the_place(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    assert measure(file, "--protocol", "knn", "--out", str(out)) == 0
    moved = tmp_path / "moved.pth"
    shutil.copy(file, moved)
    assert measure(moved, "--protocol", "knn", "--out", str(out)) == 0, "the same bytes are the same subject"
    assert len(records(file, out)) == 1


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--layout", "mocov2"], "--layout mocov2: unknown; allowed: moco, moco-v3, .*; did you mean 'moco'"),
        (["--layout", "simsiam"], "has no encoder where layout simsiam keeps it"),
        (["--protocol", "knnn"], "--protocol: unknown protocol 'knnn'; allowed: .*; did you mean 'knn'"),
        (["--protocol", "knn", "knn"], "--protocol: one is named twice"),
        (["--protocol", "knn", "--set", "knn.kk=3"], "--set knn.kk: unknown key; allowed here: .*k"),
        (["--protocol", "knn", "--set", "knn.k=many"], "--set knn.k: expected a whole number, found the text 'many'"),
        (["--protocol", "knn", "--set", "linear.l2_low=1"], "'linear' is not among --protocol knn"),
        (
            ["--protocol", "knn", "linear_moco", "--set", "linear_moco.epochs=2"],
            r"^error: --protocol linear_moco: milestones \[60, 80\] do not",
        ),
        (["--protocol", "knn", "--set", "knn"], "--set knn: expected PROTOCOL.KEY=VALUE"),
        (["--protocol", "knn"], "which images. name them with --dataset"),
        (["--protocol", "knn", "--dataset", "shape"], "unknown data set 'shape'"),
        (["--protocol", "knn", "--dataset", "shapes", "--held-out", "1.5"], "--held-out 1.5: must be at least 0 and below 1"),
        (["--protocol", "knn", "--dataset", "shapes", "--held-out", "nan"], "--held-out nan: must be at least 0 and below 1"),
        (["--protocol", "knn", "--dataset", "shapes", "--train-images", "-1"], "--train-images -1: must be at least 0"),
        (["--protocol", "knn", "--dataset", "shapes", "--threads", "0"], "--threads 0: must be at least 1"),
        (["--protocol", "knn", "--dataset", "shapes", "--image-size", "0"], "--image-size 0: must be at least 1"),
        (["--encoder", "nam=resnet18"], "--encoder nam: unknown key; .*did you mean 'name'"),
        (["--encoder", "name=resnet50"], "holds an encoder with name resnet10, but --encoder says name=resnet50"),
        (["--encoder", "width"], "--encoder width: expected KEY=VALUE"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(file: Path, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file, *more) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and re.search(sentence, words(error)), error
    assert not file.with_name(f"{file.name}.evaluations").exists()


def test_a_partial_match_is_listed_and_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = torch.load(file, weights_only=True)
    del contents["state_dict"]["module.encoder_q.layer2.0.conv1.weight"]
    contents["state_dict"]["module.something.weight"] = torch.ones(1)
    torch.save(contents, file)
    assert measure(file, "--layout", "moco", "--protocol", "knn") == 2
    said = capsys.readouterr()
    assert "1 missing layer2.0.conv1.weight" in words(said.out) and "1 unknown something.weight" in words(said.out)
    assert "it lacks layer2.0.conv1.weight and it has something.weight, which it does not know" in words(said.err)
    assert not records(file)


def test_one_protocol_that_is_refused_does_not_keep_the_others_from_being_measured(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(file, "--protocol", "linear", "knn", "--held-out", "0") == 2
    assert [record["stage"] for record in records(file).values()] == ["knn"]
    assert "held_out is 0" in words(capsys.readouterr().err)


def test_a_record_that_could_not_be_made_anew_is_not_shown_as_new(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no memory")

    assert measure(file, "--protocol", "knn") == 0
    assert "had it" not in capsys.readouterr().out
    assert measure(file, "--protocol", "knn", "--again") == 0
    assert "had it" not in capsys.readouterr().out
    (record,) = file.with_name(f"{file.name}.evaluations").glob("*-????????????.json")
    record.write_text("torn")
    assert measure(file, "--protocol", "knn", "--again") == 0  # whatever it was
    monkeypatch.setitem(PROTOCOLS, "knn", fails)
    assert measure(file, "--protocol", "knn", "--again") == 1
    said = capsys.readouterr()
    assert "had it" in said.out and "RuntimeError: no memory" in said.err


def test_a_resnet_of_large_photographs_on_small_images_is_noticed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notice = "this ResNet's last maps have 1 x 1; --image-size 224 enlarges the images"
    assert measure(file, "--protocol", "knn") == 0
    said = words(capsys.readouterr().out)
    assert notice not in said and "shapes, 300 train (of 20,000), 100 test (of 4,000), 32 x 32 pixels" in said
    torch.save(own_state(config=dataclasses.replace(ENCODER, stem="imagenet")), file)
    assert main([str(file), "--protocol", "knn", "--dataset", "shapes", *SIZES, "--device", "cpu"]) == 0
    assert notice in words(capsys.readouterr().out)


def test_a_vit_takes_images_that_its_patches_divide(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = EncoderConfig(name="vit_tiny", width=0.3334, patch_size=8, positions="learned", grid=4)
    torch.save(own_state(config=config), file)
    assert main([str(file), "--protocol", "knn", "--dataset", "shapes", *SIZES, "--image-size", "30"]) == 2
    assert "cuts images into patches of 8; take a multiple of it" in words(capsys.readouterr().err)
    assert main([str(file), "--protocol", "knn", "--dataset", "shapes", *SIZES, "--device", "cpu"]) == 0
    (record,) = records(file).values()
    assert record["checkpoint"]["encoder"]["positions"] == "learned" and record["checkpoint"]["layout"] == "timm"


def test_detection_data_is_found_by_name_and_nothing_else_is_asked_for(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = EncoderConfig(name="vit_tiny", width=0.3334, patch_size=8)
    torch.save(own_state(config=config), file)
    more = ["--protocol", "attention", "--set", "attention.dataset=shapes", "attention.images=8"]
    more += ["--encoder", "positions=sincos"]
    assert main([str(file), *more, "--image-size", "32", *SIZES, "--device", "cpu"]) == 0
    (record,) = records(file).values()
    assert len(record["protocol"]["content"]) == 12 and record["protocol"]["dataset"] == "shapes"
    assert record["metrics"] and "which no protocol here looks at" in words(capsys.readouterr().out)
    assert main([str(file), *more, *SIZES, "--device", "cpu"]) == 0
    sizes = sorted(record["data"]["image_size"] for record in records(file).values())
    assert sizes == [32, 224], "photographs are not looked at in the size of drawn images that stand in for others"
    for picture in record["pictures"]:
        assert (file.with_name(f"{file.name}.evaluations") / picture).exists()
    assert main([str(file), "--protocol", "attention", "--set", "attention.dataset=voc07", *more[-2:]]) == 2
    assert "voc07 is needed, but no path is given" in words(capsys.readouterr().err)


def test_a_checkpoint_of_our_own_is_measured_on_its_cells_images(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmark.train.checkpoint import save
    from methods import load
    from methods.base import Setting

    kind = load("random")
    content = prepare(find("shapes", None, Path(os.environ["RETABLE_CACHE"])), Path(os.environ["RETABLE_CACHE"])).content
    data = {"name": "shapes", "content": content, "image_size": 32, "train_images": 200, "test_images": 50, "held_out": 0.25}
    encoder = {"name": "resnet10", "stem": "stride2", "width": 0.25}
    config = {"method": "random", "version": kind.VERSION, "encoder": encoder, "data": data, "seed": 5}
    method = kind(kind.Config(), ENCODER, Setting())
    save(file, {"config": config, "method": method.state_dict(), "step": 0})
    assert main([str(file), "--protocol", "knn", "--device", "cpu"]) == 0
    (record,) = records(file).values()
    assert {key: record["data"][key] for key in data} == data and record["seed"] == 5
    assert record["checkpoint"]["method"] == "random" and record["checkpoint"]["layout"] == "retable"
    assert record["data"]["mean"] != list(NORMALIZATIONS["imagenet"][0]), "ours are trained on the data set's own"
    assert "random, step 0, resnet10" in words(capsys.readouterr().out)


def test_stopped_it_goes_on_and_ends_with_the_same_numbers(file: Path, cache: Path, tmp_path: Path) -> None:
    environment = os.environ | {"RETABLE_CHECKPOINT_SECONDS": "0.2", "OMP_NUM_THREADS": "1"}
    more = ["--encoder", "stem=stride2", "--dataset", "shapes", *SIZES, "--threads", "1", "--device", "cpu"]
    more += ["--protocol", "linear_simclr", "--set", "linear_simclr.epochs=20", "linear_simclr.batch_size=20"]
    more += ["linear_simclr.gap=false", "--out"]
    command = [sys.executable, "-m", "benchmark.evaluate", str(file), *more]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    running = subprocess.Popen(
        [*command, str(halves)], env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not list(halves.glob("*.pt")) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, error = running.communicate(timeout=120)
    assert running.returncode == 4, error
    assert b"start the same command again" in error and list(halves.glob("*.pt")) and not records(file, halves)
    for out in (halves, whole):
        subprocess.run([*command, str(out)], env=environment, cwd=ROOT, check=True, capture_output=True)
    (one,), (other,) = records(file, halves).values(), records(file, whole).values()
    assert one["metrics"] == other["metrics"] and one["chosen"] == other["chosen"] and one["id"] == other["id"]
    assert one["timing"]["resumed"] and "resumed" not in other["timing"]
    assert not list(halves.glob("*.pt"))


def test_two_at_once_into_one_folder(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmark.store.owner import Claim

    out = file.with_name(f"{file.name}.evaluations")
    out.mkdir()
    claim = Claim.take(out)
    assert claim is not None
    assert measure(file, "--protocol", "knn") == 2
    assert "another process measures into this folder" in words(capsys.readouterr().err)
    claim.release("done")
    assert measure(file, "--protocol", "knn") == 0


def test_a_trouble_before_the_first_protocol_leaves_the_folder_free(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*arguments: Any) -> None:
        raise InputError("the labels cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr("benchmark.evaluate.__main__.split", refuses)
        assert measure(file, "--protocol", "knn") == 2
    assert measure(file, "--protocol", "knn") == 0
