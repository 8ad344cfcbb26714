"""The test features in the plane, coloured by class: principal components beside t-SNE. A picture, and how far to trust it.

Class names colour the points and choose nothing: the maps are made of the features alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.data.split import stratified
from benchmark.errors import InputError
from benchmark.evaluate.frozen import sound
from benchmark.evaluate.subject import Found, Place, Subject

_COMPONENTS = 50  # t-SNE starts from so many principal components, as its authors do
_NEIGHBOURS = 5

Points = NDArray[np.float64]


def embedding_map(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    """Leaves `<stem>-map.png`. pca_explained: percent of the variance in the two components that are drawn; pca_trust,
    tsne_trust: trustworthiness in percent (Venna & Kaski, 2001), how many of a point's 5 neighbours in the map are near it in
    feature space too; a map of chance has about 50. InputError where there is nothing to draw."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE, trustworthiness

    features = sound(subject, "embedding_map")
    y = features.test_y.cpu().numpy()
    few = np.flatnonzero(y < protocol["classes"])
    few = few[stratified(y[few], protocol["images"], stream=3)]
    x, labels = features.test_x.cpu().numpy().astype(np.float64)[few], y[few]
    if len(x) <= 2 * _NEIGHBOURS:
        raise InputError(
            f"embedding_map: {len(x)} test images of the first {protocol['classes']} classes are too few for a map"
        )
    if np.ptp(x, axis=0).max() == 0:  # collapsed to a point: every map is one
        flat = np.zeros((len(x), 2))
        draw(place.file("map.png"), {"PCA": flat, "t-SNE": flat}, labels, subject.dataset.classes)
        return Found({"pca_explained": 0.0}, pictures=(place.file("map.png").name,))
    components = PCA(min(_COMPONENTS, *x.shape), random_state=subject.seed).fit(x)
    reduced = components.transform(x)
    plane = np.pad(reduced, ((0, 0), (0, max(0, 2 - reduced.shape[1]))))[:, :2]
    perplexity = min(protocol["perplexity"], (len(x) - 1) / 3)
    start = 1e-4 * plane / plane[:, 0].std()  # as scikit-learn's own start from the components, which needs two
    scattered = TSNE(perplexity=perplexity, init=start.astype(np.float32), random_state=subject.seed).fit_transform(reduced)
    trust = {name: 100.0 * float(trustworthiness(x, made, n_neighbors=_NEIGHBOURS))
             for name, made in (("pca", plane), ("tsne", scattered))}  # fmt: skip
    explained = 100.0 * float(components.explained_variance_ratio_[:2].sum())
    titles = {f"PCA, {explained:.0f} % of the variance": plane, f"t-SNE, perplexity {perplexity:g}": scattered}
    draw(place.file("map.png"), titles, labels, subject.dataset.classes)
    metrics = {"pca_explained": explained, "pca_trust": trust["pca"], "tsne_trust": trust["tsne"]}
    return Found(metrics, {"images": len(x), "perplexity": perplexity}, (place.file("map.png").name,))


def draw(path: Path, maps: dict[str, Points], labels: NDArray[np.integer], classes: tuple[str, ...]) -> None:
    """One panel a map (N x 2), a colour and a marker a class, with the classes' names beside them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    present = sorted({int(label) for label in labels})
    colours = sns.color_palette("colorblind", 10) if len(present) <= 10 else sns.color_palette("husl", len(present))
    markers = "osD^v<>PX*"
    figure, panels = plt.subplots(1, len(maps), figsize=(5.2 * len(maps) + 1.6, 5.0), layout="constrained", dpi=150)
    for panel, (title, points) in zip(np.atleast_1d(panels), maps.items(), strict=True):
        for number, label in enumerate(present):
            own = points[labels == label]
            panel.scatter(
                own[:, 0], own[:, 1], s=10, marker=markers[number % len(markers)], color=colours[number % len(colours)],
                alpha=0.75, linewidths=0, label=classes[label],
            )  # fmt: skip
        panel.set_title(title, fontsize=11)
        panel.set_xticks([])
        panel.set_yticks([])
    handles, names = np.atleast_1d(panels)[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9, markerscale=2)
    figure.savefig(path)
    plt.close(figure)
