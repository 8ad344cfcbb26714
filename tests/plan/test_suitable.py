"""A sweep that asks a cell for what it cannot give is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.errors import InputError
from benchmark.plan.evaluations import read_protocols
from benchmark.plan.suitable import unsuitable
from benchmark.plan.sweep import load_sweep

TEXT = """
question: q
base: {{method: byol, epochs: 1, batch_size: 10, encoder: {{name: {encoder}}}, data: {{name: shapes, train_images: 100{more}}}}}
rows: {{a: {{}}}}
evaluate: {evaluate}
profiles: {{smoke: {{}}}}
"""


def sweep(folder: Path, evaluate: str, encoder: str = "resnet10", more: str = ""):
    path = folder / "s.yaml"
    path.write_text(TEXT.format(evaluate=evaluate, encoder=encoder, more=more))
    return load_sweep(path)


@pytest.mark.parametrize(
    ("evaluate", "words"),
    [
        ("[knn, linear]", "linear: row 'a': linear chooses its l2 on held-out images, but data.held_out is 0; set it above 0"),
        ("{knn: {ks: [5, 20]}}", "knn chooses among its ks on held-out images"),
        ("{knn: {ks: [5, 20], temperatures: [0.1, 0.2]}}", "knn chooses among its ks and temperatures on"),
        ("[finetune_byol_1]", "finetune_byol_1 chooses among its learning_rates and shorter on"),
        ("{distill: {teacher: {learning_rates: [0.1, 0.2]}}}", "distill chooses among its learning_rates on"),
        ("{linear_byol: {learning_rates: [0.1, 0.2]}}", "linear_byol chooses among its learning_rates on"),
    ],
)
def test_a_choice_needs_held_out_images(tmp_path, evaluate, words):
    with pytest.raises(InputError, match=rf"s.yaml:5: evaluate > {words}" if words.startswith("linear:") else words):
        sweep(tmp_path, evaluate, more=", held_out: 0.0")
    sweep(tmp_path, evaluate)
    sweep(tmp_path, "{knn: {ks: [5]}, linear_moco: {}, finetune: {shorter: [30]}}", more=", held_out: 0.0")  # nothing to choose


@pytest.mark.parametrize(
    ("evaluate", "encoder", "words"),
    [
        ("[attention]", "resnet10", "only a ViT has attention maps, and encoder.name is resnet10; take vit_tiny"),
        ("[detection_voc07]", "vit_tiny", "detection_voc07 needs the stages of a ResNet, and encoder.name is vit_tiny"),
        ("[detection_smoke]", "convnet", "detection_smoke needs the stages of a ResNet, and encoder.name is convnet"),
        ("{detection_smoke: {engine: detectron2}}", "resnet10, norm: group", "this encoder has norm group; set engine to"),
        ("{detection_smoke: {engine: detectron2}}", "resnet50, sk: true", "this encoder has selective kernels; set engine to"),
        ("{linear_dino: {blocks: 13}}", "vit_tiny", "linear_dino.blocks is 13, and vit_tiny has 12; lower it"),
    ],
)
def test_an_encoder_must_have_what_is_asked_of_it(tmp_path, evaluate, encoder, words):
    with pytest.raises(InputError, match=words):
        sweep(tmp_path, evaluate, encoder)


def test_what_fits_is_not_refused(tmp_path):
    sweep(tmp_path, "[detection_voc07, linear_dino]", "resnet10")  # of a ResNet, `blocks` means its own features
    sweep(tmp_path, "[attention, linear_dino]", "vit_tiny, patch_size: 8")
    sweep(tmp_path, "{detection_smoke: {engine: detectron2}}", "resnet10")
    sweep(tmp_path, "{detection_smoke: {engine: builtin}}", "resnet10, norm: group")


def test_maps_and_detectors_are_of_rgb_photos():
    config = {"encoder": {"name": "resnet10"}, "data": {"held_out": 0.1}}
    (smoke,) = read_protocols(["detection_smoke"], lambda path: "evaluate")
    modalities = [{"channels": "l"}, {"channels": "ab", "same_draws": True}, {"channels": "l"}]
    assert unsuitable(smoke, config | {"views": modalities}) == (
        "detection_smoke shows the network rgb photos, and this one sees l and ab; drop it here"
    )
    assert unsuitable(smoke, config | {"views": [{}, {"channels": "l"}]}) is None  # not seen in the place of the first
    assert unsuitable(smoke, config) is None  # a network that is not trained has no views
