"""Views of a row: multi-crop, patches, modalities, views that a switch adds; and every list of crops that cannot be meant."""

from pathlib import Path

import pytest

from benchmark.errors import InputError
from benchmark.plan.cost import views_to_process
from benchmark.plan.sweep import load_sweep
from methods.catalogue import CATALOGUE
from methods.views import RECIPES

ENTRY = {
    "version": 1, "paper": "none", "num_views": 2, "recipe": "swav", "trains": True,
    "multi_crop": False, "patches": False, "modalities": False, "config": {"fields": {}},
}  # fmt: skip
# What kinds of methods there are, whatever the methods are called.
KINDS = {
    "crops": ENTRY | {"multi_crop": True},
    "three_laws": ENTRY | {"multi_crop": True, "recipe": "dino"},
    "pieces": ENTRY | {"patches": True, "num_views": 1, "recipe": "cpc"},
    "channels": ENTRY | {"modalities": True, "num_views": 1, "recipe": "cmc"},
    "puzzle": ENTRY | {
        "recipe": "infomin",
        "config": {"fields": {"jigsaw": {"type": "bool", "default": True, "adds": {"true": ["jigsaw"]}}}},
    },
    "pairs": ENTRY | {
        "recipe": "mocov2",
        "config": {
            "fields": {"form": {"type": "str", "default": "two", "choices": ["two", "four"], "adds": {"four": ["mocov2"] * 2}}}
        },
    },
    "optional": ENTRY | {"config": {"fields": {"queue": {"type": "int", "default": 0, "at_least": "batch_size"}}}},
    "queued": ENTRY | {"config": {"fields": {
        "queue": {"type": "int", "default": 64, "at_least": "batch_size"},
        "mechanism": {"type": "str", "default": "a", "choices": ["a", "b"], "governs": {"b": ["queue"]}},
        "channels": {"type": "ints", "default": [1, 2]},
    }}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    known = CATALOGUE()["methods"]
    for name, entry in KINDS.items():
        monkeypatch.setitem(known, name, entry)


def expand(tmp_path: Path, base: str, image_size: int = 32):
    path = tmp_path / "s.yaml"
    data = f"data: {{image_size: {image_size}}}"
    path.write_text(f"question: q\nbase: {{{data}, batch_size: 32}}\nrows:\n  row: {base}\nprofiles: {{smoke: {{}}}}\n")
    (row,) = load_sweep(path).expand("smoke")
    return row.cells[0].config


def views(tmp_path: Path, base: str, image_size: int = 32):
    return expand(tmp_path, base, image_size)["views"]


CROPS = "views.crops: [{count: 2, size: 32, scale: [0.14, 1]}, {count: 3, size: 16, scale: [0.05, 0.14]}]"


def test_multi_crop_lists_full_size_crops_first(tmp_path):
    found = views(tmp_path, f"{{method: crops, {CROPS}}}")
    assert [(view["size"], view["crop_scale"]) for view in found] == [(32, [0.14, 1.0])] * 2 + [(16, [0.05, 0.14])] * 3
    assert len(views(tmp_path, "{method: crops}")) == 2
    assert len(views(tmp_path, "{method: crops, views.crops: []}")) == 2


def test_small_crops_have_a_law_of_their_own(tmp_path):
    found = views(tmp_path, f"{{method: three_laws, {CROPS}, views.local.blur_prob: 0.25, views.both.hue: 0.3}}")
    first, second, third = RECIPES["dino"]
    assert [view["blur_prob"] for view in found] == [first.blur_prob, second.blur_prob, 0.25, 0.25, 0.25]
    assert [view["solarize_prob"] for view in found] == [0.0, 0.2, 0.0, 0.0, 0.0] and third.solarize_prob == 0.0
    assert {view["hue"] for view in found} == {0.3}


def test_a_list_of_crops_in_a_profile_is_left_out_for_methods_without(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        f"question: q\nbase: {{{CROPS}}}\nrows:\n  a: {{method: byol}}\n  b: {{method: crops}}\nprofiles: {{smoke: {{}}}}\n"
    )
    a, b = load_sweep(path).expand("smoke")
    assert len(a.cells[0].config["views"]) == 2 and len(b.cells[0].config["views"]) == 5


def test_modalities_show_the_same_crop_again(tmp_path):
    found = views(tmp_path, "{method: channels, views.modalities: [sobel, rgb]}")
    assert [view.get("channels", "rgb") for view in found] == ["lab", "sobel", "rgb"]
    assert [view.get("same_draws", False) for view in found] == [False, True, True]
    assert {view["crop_scale"][0] for view in found} == {0.08}


def test_patches_are_for_methods_that_take_them(tmp_path):
    small = "views.both: {size: 32, patch_grid: 3, patch_size: 16, patch_stride: 8, patch_inner: 0}"
    (view,) = views(tmp_path, f"{{method: pieces, {small}}}")
    assert (view["patch_grid"], view["patch_size"]) == (3, 16)
    with pytest.raises(InputError, match="reach to pixel 32 of a view of 24"):
        views(tmp_path, f"{{method: pieces, {small.replace('size: 32', 'size: 24')}}}")


def test_a_switch_adds_a_view(tmp_path):
    small = "views.added: {size: 33, patch_size: 9, patch_stride: 11, patch_slack: 2}"
    found = views(tmp_path, f"{{method: puzzle, {small}}}")
    assert [view.get("patch_grid", 0) for view in found] == [0, 0, 3]
    assert (found[2]["size"], found[2]["patch_stride"]) == (33, 11)
    assert len(views(tmp_path, "{method: puzzle, jigsaw: false}")) == 2


def test_added_views_of_the_methods_own_recipe_follow_the_row(tmp_path):
    found = views(tmp_path, "{method: pairs, form: four, views.recipe: byol, views.both.hue: 0.3}")
    assert len(found) == 4 and found[0] == found[2] and found[1] == found[3]
    assert found[1]["solarize_prob"] == 0.2 and found[3]["hue"] == 0.3


def test_sobel_views_go_to_any_method(tmp_path):
    assert {view["channels"] for view in views(tmp_path, "{method: byol, views.recipe: deepcluster}")} == {"sobel"}


def test_a_vit_sees_whole_patches(tmp_path):
    config = expand(tmp_path, f"{{method: crops, encoder: {{name: vit_tiny, patch_size: 8}}, {CROPS}}}")
    assert len(config["views"]) == 5


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("method: byol, " + CROPS, "rows > row > views.crops: method 'byol' takes no crops of several sizes; drop this key"),
        ("method: byol, views.local.hue: 0.1", "views.local.hue: method 'byol' takes no crops of several sizes"),
        ("method: byol, views.modalities: [lab]", "method 'byol' takes no views of that kind; drop this key"),
        ("method: byol, views.added.size: 3", "views.added.size: method 'byol' takes no views of that kind"),
        ("method: crops, views.crops: 3", "expected a list of entries such as"),
        ("method: crops, views.crops: [3]", "expected a list of entries such as"),
        ("method: crops, views.crops: [{count: 2, size: 32}]", "views.crops > [0]: lacks 'scale'; each entry has"),
        ("method: crops, views.crops: {count: 2, size: 32, scale: [1, 1]}", "views > crops: expected a list of entries"),
        ("method: crops, views.crops: [{number: 2}]", "[0] > number: unknown key; allowed here: count, scale, size"),
        ("method: crops, views.crops: [{count: two, size: 8, scale: [1, 1]}]", "expected a whole number, found the text 'two'"),
        ("method: crops, views.crops: [{count: 0, size: 8, scale: [1, 1]}]", "[0] > count: is 0; drop the"),
        (
            "method: crops, views.crops: [{count: 2, size: 32, scale: [1, 1]}, {count: 2, size: -8, scale: [1, 1]}]",
            "views.crops > [1] > size: must not be negative, found -8",
        ),
        ("method: crops, views.crops: [{count: 2, size: 8, scale: [0, 1]}]", "0 < low <= high"),
        ("method: crops, views.crops: [{count: 2, size: 8, scale: [0.5, 2]}]", "areas are fractions of the image"),
        (
            "method: crops, views.crops: [{count: 1, size: 32, scale: [0.2, 1]}, {count: 4, size: 16, scale: [0.1, 0.2]}]",
            "begins with 1 crops, but this method takes 2 of full size first",
        ),
        (
            "method: crops, views.crops: [{count: 6, size: 32, scale: [0.2, 1]}]",
            "begins with 6 crops, but this method takes 2 of full size first",
        ),
        (
            "method: crops, views.crops: [{count: 2, size: 16, scale: [0.2, 1]}, {count: 4, size: 0, scale: [0.1, 0.2]}]",
            "has crops of 32 pixels after those of full size, 16; put those first",
        ),
        (f"method: crops, {CROPS}, views.both.crop_scale: [0.5, 1]", "views.both.crop_scale contradicts views.crops"),
        (f"method: crops, {CROPS}, views.local.size: 8", "views.local.size contradicts views.crops"),
        ("method: crops, views.local.hue: 0.1", "there are none; say views.crops"),
        ("method: channels, views.modalities: [sobl]", "unknown value 'sobl'; allowed: rgb, lab, sobel; did you mean 'sobel'"),
        ("method: byol, views.second.same_draws: true", "takes no two views of the same draws"),
        ("method: byol, views.both.patch_grid: 2", "method 'byol' takes whole views; drop patch_grid"),
        ("method: byol, views.recipe: jigsaw", "method 'byol' takes whole views; drop patch_grid"),
        ("method: pieces, views.recipe: simclr", "method 'pieces' takes views in patches; say views.both.patch_grid"),
        ("method: byol, views.third.hue: 1", "expected views.recipe, views.crops, views.modalities or"),
        (
            "method: crops, encoder: {name: vit_tiny, patch_size: 12}, " + CROPS,
            "views of 16 pixels cannot be cut into patches of 12; change encoder.patch_size or the views",
        ),
        (
            "method: puzzle, jigsaw: false, views.added.size: 33",
            "views.added.size: contradicts 'jigsaw: false', which adds no view; drop one of them",
        ),
        ("method: random, encoder: {name: vit_tiny, patch_size: 5}", "views of 32 pixels cannot be cut into patches of 5"),
        ("method: queued, queue: 31", "rows > row > queue: queue is 31, but must be at least batch_size, 32"),
        ("method: queued, batch_size: 65", "rows > row > batch_size: queue is 64, but must be at least batch_size, 65"),
        ("method: queued, channels: [1, x]", "expected a list of whole numbers, found a list"),
        ("method: queued, channels: 3", "expected a list of whole numbers, found the number 3"),
        ("method: queued, channels: [1, -2]", "must not hold a negative number"),
        ("method: queued, optimizer.trust: 0.1", "contradicts 'optimizer.name: sgd', which leaves trust unused"),
        ("method: queued, optimizer: {name: lars, betas: [0.9, 0.99]}", "contradicts 'optimizer.name: lars', which leaves"),
        ("method: queued, optimizer: {name: adamw, betas: [0.9, 1.0]}", "two numbers above 0 and below 1"),
        ("method: queued, optimizer.scale_rule: sqrt", "contradicts 'optimizer.scale_with_batch: false'"),
        ("method: queued, optimizer.clip_by: parameter", "contradicts 'optimizer.clip_norm: 0.0'"),
        ("method: queued, optimizer.name: lar", "unknown value 'lar'; allowed: sgd, lars, adamw, lamb; did you mean 'lars'"),
        ("method: queued, schedule.kind: step", "needs milestones, the epochs at which the rate falls"),
        ("method: queued, schedule: {kind: step, milestones: [5, 3]}", "expected rising epochs above 0 and below 10, found"),
        ("method: queued, schedule: {kind: step, milestones: [5, 10]}", "expected rising epochs above 0 and below 10, found"),
        ("method: queued, schedule.milestones: [5]", "contradicts 'schedule.kind: cosine', which leaves milestones unused"),
        ("method: queued, schedule.final_weight_decay: 0.4", "contradicts 'schedule.weight_decay: constant'"),
        ("method: queued, schedule.warmup_start: 2", "must lie between 0 and 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_in_one_sentence(tmp_path, row, words):
    with pytest.raises(InputError) as caught:
        views(tmp_path, f"{{{row}}}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value) and "s.yaml:4" in str(caught.value)


def test_patches_that_do_not_fit_are_said_where_the_row_says_its_encoder(tmp_path):
    """Not where its profile happens to speak of views."""
    path = tmp_path / "s.yaml"
    path.write_text(
        "question: q\nbase: {data: {image_size: 32}}\nrows:\n  r: {method: byol, encoder: {name: vit_tiny, patch_size: 7}}\n"
        "profiles: {smoke: {set: {views.both: {hue: 0.1}}}}\n"
    )
    with pytest.raises(InputError, match=r"s.yaml:4: rows > r > encoder > name: views of 32 pixels cannot be cut"):
        load_sweep(path)


def test_a_profile_may_speak_of_views_that_some_rows_do_not_add(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "question: q\nbase: {data: {image_size: 32}}\nrows:\n  r: {method: puzzle, jigsaw: false}\n"
        "profiles: {smoke: {set: {views.added: {size: 33}}}}\n"
    )
    assert len(load_sweep(path).expand("smoke")[0].cells[0].config["views"]) == 2


def test_a_queue_that_is_not_used_may_be_short(tmp_path):
    assert expand(tmp_path, "{method: optional, queue: 0}")["queue"] == 0  # its default: none
    with pytest.raises(InputError, match="queue is 8, but must be at least batch_size, 32"):
        expand(tmp_path, "{method: optional, queue: 8}")
    path = tmp_path / "s.yaml"
    path.write_text("question: q\nbase: {queue: 8}\nrows:\n  r: {method: queued, mechanism: b}\nprofiles: {smoke: {}}\n")
    assert load_sweep(path).expand("smoke")[0].cells[0].config["queue"] == 8


def test_settings_that_came_later_are_left_out_at_their_defaults(tmp_path):
    for row in ("{method: byol}", "{method: byol, optimizer.clip_norm: 0, schedule: {every: step, warmup_start: 0}}"):
        config = expand(tmp_path, row)
        assert set(config["optimizer"]) == {
            "name", "learning_rate", "scale_with_batch", "momentum", "nesterov", "weight_decay", "exclude_bias_and_norm"
        }  # fmt: skip
        assert set(config["schedule"]) == {"kind", "warmup_epochs", "final_fraction"}
    said = "{method: byol, optimizer: {name: lars, lars: google}, schedule: {kind: step, milestones: [5]}}"
    later = expand(tmp_path, said)
    assert later["optimizer"]["lars"] == "google" and later["schedule"]["milestones"] == [5]


def test_small_crops_and_patches_count_by_their_pixels_in_the_cost(tmp_path):
    data = {"name": "x", "train_images": 320, "held_out": 0.0}

    def cost(row):
        config = expand(tmp_path, row)
        return views_to_process(config | {"epochs": 1, "data": config["data"] | data})

    assert cost("{method: byol}") == 640
    assert cost(f"{{method: crops, {CROPS}}}") == 320 * (2 + 3 / 4)
    patches = "views.both: {size: 32, patch_grid: 3, patch_size: 16, patch_stride: 8, patch_inner: 0}"
    assert cost(f"{{method: pieces, {patches}}}") == 320 * 9 / 4
