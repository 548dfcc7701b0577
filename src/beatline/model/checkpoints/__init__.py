"""In: a path to a checkpoint of beatline, the BEATs release, ESPnet or OpenBEATs. Out: a `Loaded` model.

Begin with `load`; one module a family. The only owner of pickle and safetensors.
"""
