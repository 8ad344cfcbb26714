"""Sweep files: layers, generated rows, ids, and every way a file can be wrong."""

import random
from pathlib import Path

import pytest

from benchmark.errors import InputError
from benchmark.plan.cell import Cell, canonical, group_key
from benchmark.plan.sweep import DataIdentity, load_sweep
from methods.catalogue import CATALOGUE

SHIPPED = sorted(Path("sweeps").glob("*.yaml"))

GOOD = """
question: Does it?
base: {method: byol, epochs: 4}
rows:
  one: {projector.norm: batch}
  two: {projector: {norm: none}, optimizer.learning_rate: 1e-3}
  three: {method: random}
seeds: [0, 1]
evaluate: {knn: {k: 20}}
profiles:
  smoke: {set: {epochs: 2}, rows: {two: {epochs: 3}}}
  cpu: {}
"""


def sweep(tmp_path: Path, text: str):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return load_sweep(path)


def test_layers_win_in_order(tmp_path):
    one, two, three = sweep(tmp_path, GOOD).expand("smoke", overrides={"batch_size": 32})
    assert one.cells[0].config["epochs"] == 2
    assert two.cells[0].config["epochs"] == 3
    assert two.cells[0].config["optimizer"]["learning_rate"] == 1e-3
    assert two.cells[0].config["projector"]["norm"] == "none"
    assert one.cells[0].config["batch_size"] == 32
    assert [cell.seed for cell in one.cells] == [0, 1]
    assert one.cells[0].protocols == ({"k": 20, "name": "knn", "temperature": 0.07, "version": 1},)
    assert "epochs" not in three.cells[0].config  # nothing of the training can matter to it


def test_ids_depend_on_meaning_only(tmp_path):
    """Spelling, order and the sweep's name are not in an id; every setting is."""
    respelled = (
        GOOD.replace("base: {method: byol, epochs: 4}", "base: {epochs: 4, method: byol}")
        .replace("projector.norm: batch", "projector: {norm: batch}")
        .replace("1e-3", "0.001")
    )
    first = sweep(tmp_path, GOOD).expand("smoke")
    second = sweep(tmp_path, respelled).expand("smoke")
    assert [c.id for r in first for c in r.cells] == [c.id for r in second for c in r.cells]
    integer = sweep(tmp_path, GOOD.replace("1e-3", "1")).expand("smoke")[1].cells[0]
    floating = sweep(tmp_path, GOOD.replace("1e-3", "1.0")).expand("smoke")[1].cells[0]
    assert integer.id == floating.id


def test_every_leaf_of_a_config_is_in_the_id(tmp_path):
    config = sweep(tmp_path, GOOD).expand("smoke")[0].cells[0].config

    def changed(value):
        if isinstance(value, bool):
            return not value
        return value + 1 if isinstance(value, int | float) else value + "x"

    def leaves(tree, path=()):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, child in items:
            if isinstance(child, dict | list):
                yield from leaves(child, (*path, key))
            else:
                yield (*path, key)

    ids = {Cell(config).id}
    count = 0
    for path in leaves(config):
        copy = canonical(config)
        inner = copy
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = changed(inner[path[-1]])
        ids.add(Cell(copy).id)
        count += 1
    assert len(ids) == count + 1


def test_group_key_ignores_seed_and_data_variant_only(tmp_path):
    loaded = sweep(tmp_path, GOOD)
    plain = loaded.expand("smoke")[0].cells
    other = loaded.expand("smoke", {"cifar10": DataIdentity("shapes", "0123456789ab")})[0].cells
    assert group_key(plain[0].config) == group_key(plain[1].config) == group_key(other[0].config)
    assert plain[0].id != plain[1].id != other[0].id
    assert group_key(plain[0].config) != group_key(loaded.expand("cpu")[0].cells[0].config)


def test_a_shuffled_config_has_the_same_id(tmp_path):
    config = sweep(tmp_path, GOOD).expand("smoke")[0].cells[0].config
    keys = list(config)
    random.Random(1).shuffle(keys)
    assert Cell({key: config[key] for key in keys}).id == Cell(config).id


def test_vary_grid_zip_exclude(tmp_path):
    text = """
question: q
base: {method: byol}
vary: {target_ema: [0.9, 0.99], predict: [false]}
grid: {epochs: [1, 2], batch_size: [32, 64]}
zip: [{epochs: [3, 4], batch_size: [128, 256]}]
exclude: [{epochs: 2, batch_size: 64}]
profiles: {smoke: {}}
"""
    names = [row.name for row in sweep(tmp_path, text).expand("smoke")]
    assert names == [
        "base",
        "target_ema = 0.9",
        "target_ema = 0.99",
        "predict = false",
        "epochs = 1, batch_size = 32",
        "epochs = 1, batch_size = 64",
        "epochs = 2, batch_size = 32",
        "epochs = 3, batch_size = 128",
        "epochs = 4, batch_size = 256",
    ]


def test_includes_lie_beneath(tmp_path):
    (tmp_path / "inc.yaml").write_text("base: {epochs: 7, batch_size: 16}\nseeds: [5]\n")
    rows = sweep(tmp_path, "include: [inc.yaml]\n" + GOOD.replace("seeds: [0, 1]\n", "")).expand("cpu")
    assert rows[0].cells[0].config["epochs"] == 4
    assert rows[0].cells[0].config["batch_size"] == 16
    assert rows[0].cells[0].seed == 5


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs: 4", "epoch: 4", r"s.yaml:3: base > epoch: unknown key; .*did you mean 'epochs'"),
        ("epochs: 4", "epochs: four", "expected a whole number, found the text 'four'"),
        (
            "1e-3",
            '"1e-3"',
            "s.yaml:6: rows > two > optimizer.learning_rate: expected a number.*write 1e-3 without quotes",
        ),
        (
            "projector.norm: batch",
            "predict: no",
            "s.yaml:5: .*expected true or false, found the text 'no'; write false",
        ),
        ("projector.norm: batch", "projector.norm: false", 'the truth value false; write "none" if a word is meant'),
        ("projector.norm: batch", "projector.norm: bach", "unknown value 'bach'; allowed: .*did you mean 'batch'"),
        ("method: byol", "method: boyl", "base > method: unknown method 'boyl'; .*did you mean 'byol'"),
        ("{method: random}", "{method: random, projector.norm: none}", "rows > three > projector.norm: unknown key"),
        ("{method: random}", "{method: random, epochs: 9}", "contradicts method 'random', which is not trained"),
        ("projector.norm: batch", "predict: false, predictor.norm: none", "contradicts 'predict: false'"),
        ("projector.norm: batch", "target: online, target_ema: 0.9", "contradicts 'target: online'"),
        ("projector.norm: batch", "stop_gradient: false", "'stop_gradient: false' needs 'target: online'"),
        ("projector.norm: batch", "schedule.warmup_epochs: 9", "warm-up of 9.0 epochs does not fit into"),
        ("projector.norm: batch", "epochs: -1", "must be above 0"),
        ("projector.norm: batch", "epochs: 1.5", "expected a whole number, found the number 1.5"),
        ("projector.norm: batch", "data.held_out: 1", "must be at least 0 and below 1"),
        ("projector.norm: batch", "projector: batch", "expected a section with keys among"),
        ("projector.norm: batch", "epochs: 1e999", "expected a whole number"),
        ("projector.norm: batch", "optimizer.learning_rate: 1e999", "expected a finite number"),
        ("projector.norm: batch", "target_ema: 2", "must lie between 0 and 1"),
        ("projector.norm: batch", "projector.out: 64", "base > predictor > out: is 256, but must equal projector.out, 64"),
        ("projector.norm: batch", "views.recipe: [byol]", "unknown recipe"),
        ("projector.norm: batch", "epochs.x: 1", "'epochs' is a value of method byol, not a section"),
        ("projector.norm: batch", "views.recipe: byl", "unknown recipe 'byl'; .*did you mean 'byol'"),
        ("projector.norm: batch", "views.first.blur: 1", "unknown key; .*blur_prob"),
        ("projector.norm: batch", "views.first.crop_scale: [1, 0.2]", "with 0 < low <= high"),
        ("projector.norm: batch", "views.first.crop_scale: [0.5, 3]", "views.first.crop_scale: .*areas are fractions"),
        ("projector.norm: batch", "views.first.order: crop", "expected a list of words among crop, flip"),
        ("projector.norm: batch", "views.first.order: [crop, blurr]", "unknown value 'blurr'; .*did you mean 'blur'"),
        ("projector.norm: batch", "views.first.order: [crop, crop]", "order names an operation twice"),
        ("projector.norm: batch", "views.recipe: jigsaw", "method 'byol' takes whole views; drop patch_grid"),
        ("projector.norm: batch", "views.first.channels: lab", "share their channels, found lab and rgb"),
        (
            "projector.norm: batch",
            "views.both: {blur_prob: 1, blur_kernel: 5}",
            "a blur_kernel of 5.0 is too wide for images of",
        ),
        ("projector.norm: batch", "projector.norm: batch, projector: {norm: none}", "given twice"),
        ("seeds: [0, 1]", "seeds: 3", "expected a list of whole numbers"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "given twice"),
        ("{knn: {k: 20}}", "[knnn]", "unknown protocol 'knnn'; .*did you mean 'knn'"),
        ("{knn: {k: 20}}", "{knn: {n: 20}}", "evaluate > knn > n: unknown key; allowed here: k, ks, temperature"),
        ("  cpu: {}", "  cpu: {rows: 3}", "expected row names with keys and values"),
        ("  cpu: {}", "  cpu: {rows: {one: 3}}", "expected row names with keys and values"),
        ("  cpu: {}", "  cpu: {seeds: 3}", "profiles > cpu > seeds: expected a list of whole numbers"),
        ("evaluate:", "zip: {epochs: [1]}\nevaluate:", "zip: expected a list of entries"),
        ("evaluate:", "exclude: [epochs]\nevaluate:", "exclude: expected a list of entries"),
        ("evaluate:", "zip: &a [*a]\nevaluate:", "an alias"),
        ("  cpu: {}", "  cp: {}", "unknown profile; .*did you mean 'cpu'"),
        ("  cpu: {}", "  cpu: {epochs: 3}", "settings of the experiment go under 'set'"),
        ("rows: {two: {epochs: 3}}", "rows: {too: {epochs: 3}}", "no row of this name; .*did you mean 'two'"),
        ("question: Does it?", "quest: x", "unknown key; .*did you mean 'question'"),
        ("question: Does it?\n", "", "the key 'question' is missing"),
        ("base: {method: byol, epochs: 4}", "base: {epochs: 4}", "no method is named"),
        ("base:", "include: [nothing.yaml]\nbase:", "nothing.yaml: no such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, old, new, words):
    assert old in GOOD
    with pytest.raises(InputError, match=words) as caught:
        sweep(tmp_path, GOOD.replace(old, new)).expand("smoke")
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_is_named(tmp_path):
    with pytest.raises(InputError, match="no profile 'smok'; it has smoke, cpu; did you mean 'smoke'"):
        sweep(tmp_path, GOOD).expand("smok")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_expand_at_every_profile(path):
    loaded = load_sweep(path)
    for profile in loaded.profiles:
        rows = loaded.expand(profile)
        methods = {cell.config["method"] for row in rows for cell in row.cells}
        assert {"random", "supervised"} <= methods  # without these nobody can tell learning from no learning


def test_the_norm_ablation_has_every_row_of_its_three_tables():
    rows = {row.name: row.cells[0].config for row in load_sweep(Path("sweeps/byol_norm_ablation.yaml")).expand("smoke")}
    assert len(rows) == 18
    norms = {
        name: tuple(config.get(part, {}).get("norm") for part in ("encoder", "projector", "predictor"))
        for name, config in rows.items()
    }
    assert norms["BYOL (BN / BN)"] == ("batch", "batch", "batch")
    assert norms["No normalization in the heads"] == norms["BN in the encoder only"] == ("batch", "none", "none")
    assert norms["No normalization anywhere"] == ("none", "none", "none")
    assert norms["GN + WS"] == ("group_ws", "group", "group")
    assert norms["LN everywhere"] == ("layer", "layer", "layer")


def test_common_keys_never_clash_with_a_methods_own():
    from benchmark.plan.schema import ExperimentConfig

    common = {*ExperimentConfig.__dataclass_fields__, "encoder", "views", "method", "seed", "version"}
    for name, entry in CATALOGUE()["methods"].items():
        assert not common & set(entry["config"]["fields"]), name


def test_an_empty_section_wipes_nothing(tmp_path):
    text = GOOD.replace("base: {method: byol,", "base: {method: byol, projector.hidden: 32,")
    text = text.replace("projector.norm: batch", "projector: {}")
    assert sweep(tmp_path, text).expand("smoke")[0].cells[0].config["projector"]["hidden"] == 32


def test_an_included_mistake_is_found_in_its_own_file(tmp_path):
    (tmp_path / "inc.yaml").write_text("seeds: [0]\nbase: {epoch: 7}\n")
    with pytest.raises(InputError, match=r"inc\.yaml:2: base > epoch: unknown key"):
        sweep(
            tmp_path,
            "include: [inc.yaml]\n"
            + GOOD.replace("base: {method: byol, epochs: 4}\n", "")
            .replace("{projector.norm: batch}", "{method: byol}")
            .replace("two: {", "two: {method: byol, "),
        )


def test_a_row_may_be_measured_otherwise(tmp_path):
    text = GOOD.replace("two: {epochs: 3}", "two: {epochs: 3, evaluate: [collapse]}")
    one, two, _ = sweep(tmp_path, text).expand("smoke")
    assert [p["name"] for p in one.cells[0].protocols] == ["knn"]
    assert [p["name"] for p in two.cells[0].protocols] == ["collapse"]


@pytest.mark.parametrize("profiles", ["profiles:\n", "profiles: {}\n"])
def test_a_sweep_without_profiles(tmp_path, profiles):
    with pytest.raises(InputError, match="no profile is given"):
        sweep(tmp_path, GOOD[: GOOD.index("profiles:")] + profiles)


def test_data_sets_may_have_any_plain_name(tmp_path):
    (row,) = sweep(tmp_path, GOOD).expand("smoke", overrides={"data.name": "my_Animals-2"})[:1]
    assert row.cells[0].config["data"]["name"] == "my_Animals-2"
    for name in ("..", "a/b", "", "a b", "a=b"):
        with pytest.raises(InputError, match=r"expected a name of letters \(a to z\), digits, - and _, found the text '"):
            sweep(tmp_path, GOOD).expand("smoke", overrides={"data.name": name})
