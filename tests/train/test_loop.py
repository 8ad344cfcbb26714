"""The loop on methods made for it: what it calls and when, what it logs, and what it says of a loss that is not finite."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.data.loader import Batch
from benchmark.errors import InputError
from benchmark.store.record import divergence
from benchmark.train.loop import Diverged, Training, gradient_norms, largest_gradient
from benchmark.train.stop import Stopped, StopRequest
from methods.base import Method, Setting, grouped
from methods.encoders import EncoderConfig, build_encoder

BATCHES, BATCH, EPOCHS = 4, 2, 3
CONFIG = {
    "epochs": EPOCHS, "batch_size": BATCH, "precision": "fp32",
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "scale_with_batch": False, "momentum": 0.0, "nesterov": False,
                  "weight_decay": 0.0, "exclude_bias_and_norm": True},
    "schedule": {"kind": "cosine", "warmup_epochs": 0.0, "final_fraction": 0.0},
}  # fmt: skip


class Probe(Method):
    """Two linear layers in a row, and a list of everything that was called."""

    NAME, VERSION, PAPER, NUM_VIEWS, RECIPE, EPOCH_PASS = "probe", 1, "none", 1, "identity", True

    def __init__(self, breaks_at: int | None = None, refuses: bool = False, fixed: bool = False) -> None:
        super().__init__(None, EncoderConfig(), Setting())
        self.calls: list[str] = []
        self.seen: list[int] = []
        self.breaks_at, self.refuses, self.fixed = breaks_at, refuses, fixed
        self.head = nn.Linear(3, 1)

    def make_encoder(self, encoder):
        return nn.Linear(3, 3), 3

    def prepare(self, views):
        self.calls.append("prepare")

    def begin_epoch(self, epoch, images):
        assert [where.tolist() for _, where in images] == [[0, 1, 2, 3, 4, 5, 6, 7]]
        self.eval()
        self.calls.append(f"epoch {epoch}")

    def loss(self, views, index, labels, step):
        assert self.training
        if self.refuses:
            raise ValueError("a sentence of the method's own")
        self.calls.append(f"loss {step.step}")
        self.seen += index.tolist()
        out = self.head(self.encoder(views[0].mean(dim=(2, 3))))
        factor = float("nan") if step.step == self.breaks_at else 1.0
        return (out**2).mean() * factor, {"size": out.detach().abs().mean()}

    def features(self, images):
        return self.encoder(images.mean(dim=(2, 3)))

    def after_backward(self, step):
        self.calls.append(f"backward {step.step}")
        assert self.head.weight.grad is not None
        return {"gradient_head": self.head.weight.grad.norm()}

    def after_step(self, step):
        self.calls.append(f"after {step.step}")

    def param_groups(self):
        if not self.fixed:
            return super().param_groups()
        return grouped(self.encoder.parameters()) + grouped(self.head.parameters(), fixed_rate=True)


class FakeLoader:
    batches_per_epoch = BATCHES

    def epoch(self, epoch, start_batch=0):
        generator = torch.Generator().manual_seed(epoch)
        for number in range(BATCHES):
            views = [torch.randn(BATCH, 3, 4, 4, generator=generator)]
            if number >= start_batch:
                index = torch.tensor([10 + 2 * number, 11 + 2 * number])  # the training set is images 10 to 17 of a file
                yield Batch(views, index, torch.zeros(BATCH, dtype=torch.int64))


@dataclass
class FakeImages:
    indices: np.ndarray = field(default_factory=lambda: np.arange(10, 18))

    def __iter__(self):
        yield torch.zeros(8, 3, 4, 4), torch.arange(8)

    def positions(self):
        found = torch.full((18,), -1)
        found[10:] = torch.arange(8)
        return found


def training(tmp_path, method, stop=None, images=None, **changes):
    (tmp_path / "metrics.jsonl").touch()
    config = CONFIG | {key: CONFIG[key] | value if isinstance(value, dict) else value for key, value in changes.items()}
    torch.manual_seed(0)
    return Training(
        config, method, FakeLoader(), tmp_path, torch.device("cpu"), 1, stop or StopRequest(), lambda progress: None,
        lambda: None, images or FakeImages(),
    )  # fmt: skip


def probe(**settings):
    torch.manual_seed(0)
    return Probe(**settings)


def test_everything_is_called_once_and_in_its_order(tmp_path):
    method = probe()
    training(tmp_path, method).run()
    expected = ["prepare"]
    for step in range(EPOCHS * BATCHES):
        expected += [f"epoch {step // BATCHES}"] if step % BATCHES == 0 else []
        expected += [f"loss {step}", f"backward {step}", f"after {step}"]
    assert method.calls == expected


def test_an_index_is_a_position_in_the_training_set(tmp_path):
    method = probe()
    training(tmp_path, method).run()
    assert method.seen == list(range(8)) * EPOCHS


def test_logs_of_both_hooks_are_in_the_curves(tmp_path):
    outcome = training(tmp_path, probe(), optimizer={"clip_norm": 0.01}).run()
    assert {"size", "gradient_head", "gradient_norm"} <= set(outcome.curves)
    assert outcome.curves["gradient_norm"][0] > 0.01  # the norm before clipping


def test_gradients_are_logged_by_block(tmp_path):
    outcome = training(tmp_path, probe()).run()
    blocks = [np.array(outcome.curves[name]) for name in ("gradient/encoder.weight", "gradient/encoder.bias", "gradient/head")]
    assert np.allclose(np.sqrt(sum(block**2 for block in blocks)), outcome.curves["gradient_norm"]) and (blocks[0] > 0).all()


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("vit_tiny", ["cls_token", "patch_embed", *(f"blocks.{i}" for i in range(12)), "norm"]),
        ("resnet10", ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]),
    ],
)
def test_the_blocks_of_an_encoder(name, blocks):
    model = nn.Module()
    model.encoder, _ = build_encoder(EncoderConfig(name=name, width=0.25))
    model.encoder(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert set(gradient_norms(model)) == {"gradient_norm", *(f"gradient/encoder.{block}" for block in blocks)}
    assert gradient_norms(nn.Linear(2, 2)) == {}


def test_only_steps_that_are_logged_are_watched(tmp_path, monkeypatch):
    method, watched = probe(), []
    run = training(tmp_path, method)
    run.log_every = 5
    original = method.loss
    monkeypatch.setattr(method, "loss", lambda v, i, y, step: watched.append(step.watched) or original(v, i, y, step))
    outcome = run.run()
    assert [step + 1 for step, seen in enumerate(watched) if seen] == outcome.curves["step"] == [1, 5, 10, 12]


class Asked(StopRequest):
    """Asks to stop after so many looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def wanted(self):
        self.looks -= 1
        if self.looks < 0:
            self.ask("enough")
        return self.looks < 0


@pytest.mark.parametrize("steps", [1, 3, 4, 5])
def test_after_a_stop_no_epoch_is_begun_twice(tmp_path, steps):
    """Stopped within an epoch, at its very end (the next one has not begun) and just after the next began."""
    whole = probe()
    training(tmp_path, whole).run()
    first, second = probe(), probe()
    with pytest.raises(Stopped):
        training(tmp_path, first, Asked(steps - 1)).run()
    rest = training(tmp_path, second)
    assert rest.restore()
    rest.run()
    assert first.calls + second.calls == whole.calls
    for a, b in zip(whole.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_an_older_version_is_taken_up(tmp_path):
    """Its optimizer groups do not know the keys that the loop keeps there today."""
    first = training(tmp_path, probe(), Asked(2))
    with pytest.raises(Stopped):
        first.run()
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        for key in ("peak", "fixed_rate", "decayed"):
            del group[key]
    torch.save(state, path)
    second = training(tmp_path, probe())
    assert second.restore()
    second.run()


def test_a_group_of_fixed_rate_keeps_the_peak(tmp_path):
    run = training(tmp_path, probe(fixed=True), optimizer={"learning_rate": 0.2}, schedule={"warmup_epochs": 1.0})
    run.run()
    assert [group["lr"] for group in run.optimizer.param_groups[2:]] == [0.2, 0.2]
    assert all(group["lr"] < 0.02 for group in run.optimizer.param_groups[:2])


def test_weight_decay_follows_its_schedule_where_there_is_any(tmp_path):
    schedule = {"weight_decay": "cosine", "final_weight_decay": 0.4}
    run = training(tmp_path, probe(), optimizer={"weight_decay": 0.04}, schedule=schedule)
    run.run()
    last = run.schedule.decay(EPOCHS * BATCHES - 1)
    assert 0.3 < last < 0.4
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [last, 0.0]  # biases are exempt


@pytest.mark.parametrize("at", [0, 3])
def test_a_loss_that_is_not_finite_names_step_and_layer(tmp_path, at):
    run = training(tmp_path, probe(breaks_at=at))
    with pytest.raises(Diverged) as caught:
        run.run()
    found = caught.value.found
    assert found["step"] == at
    if at == 0:  # nothing has been differentiated before: the gradients of this loss
        assert "was not finite" in str(caught.value) and found["layer"] == "encoder.weight"
    else:  # those of the step before are still there
        norms = {name: float(p.grad.norm()) for name, p in run.method.named_parameters()}
        assert found["layer"] == max(norms, key=norms.__getitem__)
        assert found["gradient_norm"] == pytest.approx(norms[found["layer"]])
        assert f"the loss was not finite at step 3; the largest gradient, of norm {found['gradient_norm']:.3g}" in str(
            caught.value
        )


def test_a_last_step_that_breaks_the_network_is_a_divergence_too(tmp_path):
    """No loss follows it: without a look at the features the cell would count as done, and its evaluation would fail."""
    run = training(tmp_path, probe())
    whole, original = EPOCHS * BATCHES, run.method.after_step

    def after_step(step):
        original(step)
        if step.step == whole - 1:
            run.method.encoder.bias.data.fill_(float("inf"))

    run.method.after_step = after_step
    with pytest.raises(Diverged, match=f"the features were not finite after the last step, {whole}; the largest") as caught:
        run.run()
    found = caught.value.found
    assert (found["what"], found["step"]) == ("features", whole) and found["layer"] is not None
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_gradient_that_is_not_finite_is_named_first():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert largest_gradient(model) is None
    for p in model.parameters():
        p.grad = torch.full_like(p, 1e6)
    model[1].bias.grad[0] = float("inf")
    name, norm = largest_gradient(model)
    assert name == "1.bias" and norm == float("inf")


def test_divergence_in_words():
    assert divergence({"step": 7, "gradient_norm": None, "layer": None}) == "the loss was not finite at step 7"
    stored = {"step": 7, "gradient_norm": None, "layer": "a.b"}  # as JSON has an infinite norm
    assert divergence({"status": "diverged", "diverged": stored}) == divergence(stored)
    assert divergence({"status": "diverged"}) == "the loss was not finite"  # of an older version
    assert divergence(stored) == "the loss was not finite at step 7; the gradient of a.b was not finite"


def test_what_a_method_refuses_at_its_first_batch_is_the_configs_fault(tmp_path):
    with pytest.raises(InputError, match=r"config\.json: a sentence of the method's own"):
        training(tmp_path, probe(refuses=True)).run()


def test_what_a_method_raises_later_is_a_failure(tmp_path):
    method = probe()
    original = method.loss

    def loss(views, index, labels, step):
        if step.step == 5:
            raise ValueError("something broke")
        return original(views, index, labels, step)

    method.loss = loss
    with pytest.raises(ValueError, match="something broke"):
        training(tmp_path, method).run()
