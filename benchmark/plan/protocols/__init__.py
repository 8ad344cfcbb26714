"""The evaluation protocols by name, with their VERSION and what each can be told.

Part of an evaluation's identity: every setting of its config, filled in, and the VERSION. A setting that came after records
were published has metadata `later`, as everywhere.
"""

from __future__ import annotations

from benchmark.plan.protocols.frozen import BlogLogisticConfig, CollapseConfig, KnnConfig, LinearConfig

PROTOCOLS: dict[str, tuple[int, type]] = {  # name -> (VERSION, config)
    "knn": (1, KnnConfig),
    "linear": (1, LinearConfig),
    "blog_logistic": (1, BlogLogisticConfig),
    "collapse": (1, CollapseConfig),
}
