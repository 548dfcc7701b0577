"""In: a model or a run. Out: a folder for a hub with a model card, its upload, ESPnet's zip.

Begin with `hub`, which packs; `upload` sends files to a repository.
"""
