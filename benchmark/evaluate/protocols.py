"""The protocols by name: what each makes of a subject. Their settings are benchmark.plan.protocols'.

Whatever is chosen is chosen on held-out training images; each file says how.
"""

from __future__ import annotations

from benchmark.evaluate.attention import attention
from benchmark.evaluate.detection import DETECTIONS, detection
from benchmark.evaluate.distill import NAMES as DISTILLATIONS
from benchmark.evaluate.distill import distill
from benchmark.evaluate.embedding import embedding_map
from benchmark.evaluate.finetune import NAMES as FINETUNINGS
from benchmark.evaluate.finetune import finetune
from benchmark.evaluate.frozen import blog_logistic, collapse, knn, linear
from benchmark.evaluate.probe import NAMES, linear_probe
from benchmark.evaluate.subject import Evaluator

PROTOCOLS: dict[str, Evaluator] = {
    "knn": knn,
    "knn_dino": knn,
    "linear": linear,
    "blog_logistic": blog_logistic,
    "collapse": collapse,
    "attention": attention,
    "embedding_map": embedding_map,
    **dict.fromkeys(NAMES, linear_probe),
    **dict.fromkeys(DETECTIONS, detection),
    **dict.fromkeys(FINETUNINGS, finetune),
    **dict.fromkeys(DISTILLATIONS, distill),
}
