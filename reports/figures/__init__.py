"""The figures of a report: what they show as plain data (`sketches`), and the same as pictures (`render`).

    sketch.py        a figure's data: rows, numbers, labels; decided without drawing anything
    style.py         ink, colours, margins, the canvas
    paint.py         a sketch to SVG and PDF, in worker processes, and only where its data has changed
    numbers.py       the paper's numbers beside ours, row by row
    curves.py        what a training logged: loss, spread, kNN, health; MoCo v3's gradients
    heatmap.py       rows x columns, printed and coloured
    bars.py          grouped bars
    lines.py         accuracy over a factor
    factors.py       what those three have in common
    pictures.py      what evaluations drew: attention, embeddings
    cost.py          accuracy against the hours it took

Every figure is written as SVG (text as text, ink in the colour of the page around it, so that it reads on a dark page too) and
as PDF for print. matplotlib and seaborn are imported where something is drawn, and nowhere else.
"""

from reports.figures.cost import cost_against_accuracy
from reports.figures.paint import Drawing, begin, render, undrawn
from reports.figures.plan import sketches
from reports.figures.sketch import Sketch

__all__ = ["Drawing", "Sketch", "begin", "cost_against_accuracy", "render", "sketches", "undrawn"]
