"""In: a model or a run. Out: a folder for a hub, a model card, ESPnet's zip; and their upload.

Begin with `hub`.
"""
