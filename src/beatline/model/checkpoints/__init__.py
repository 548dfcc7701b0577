"""In: a path to a checkpoint of beatline, the BEATs release, ESPnet or OpenBEATs. Out: a `Loaded` model.

Begin with `load`, which asks a module for each family: `own`, `release`, `espnet`. Pickles are read in
`pickles` alone, safetensors in `own`.
"""
