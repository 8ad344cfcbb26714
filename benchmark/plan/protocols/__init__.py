"""The evaluation protocols by name, with their VERSION and what each can be told.

Part of an evaluation's identity: every setting of its config, filled in, and the VERSION. A setting that came after records
were published has metadata `later`, as everywhere.
"""

from __future__ import annotations

from benchmark.plan.protocols.detection import DETECTIONS
from benchmark.plan.protocols.finetune import DISTILLATIONS, FINETUNINGS
from benchmark.plan.protocols.frozen import BlogLogisticConfig, CollapseConfig, KnnConfig, KnnDino, LinearConfig
from benchmark.plan.protocols.pictures import AttentionConfig, EmbeddingMapConfig
from benchmark.plan.protocols.probes import PROBES

PROTOCOLS: dict[str, tuple[int, type]] = {  # name -> (VERSION, config)
    "knn": (1, KnnConfig),
    "knn_dino": (1, KnnDino),
    "linear": (1, LinearConfig),
    "blog_logistic": (1, BlogLogisticConfig),
    "collapse": (1, CollapseConfig),
    "attention": (1, AttentionConfig),
    "embedding_map": (1, EmbeddingMapConfig),
    **{name: (1, config) for name, config in PROBES.items()},
    **{name: (1, config) for name, config in (FINETUNINGS | DISTILLATIONS).items()},
    **{name: (1, config) for name, config in DETECTIONS.items()},
}
