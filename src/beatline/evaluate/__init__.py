"""In: a model and labelled clips, or their scores. Out: predictions, figures with intervals, pages.

Begin with `predict` (store to scores) and `metrics` (scores to figures); `report`, `compare` and `calibrate`
build on both. Pages are templates in `assets/pages`.
"""
