"""In: nothing of beatline. Out: what every room stands on: errors, limits, labels, whole folders, threads.

Begin with `errors` (what a user is told) and `artefact` (folders that are whole or do not exist).
Nothing here knows audio, models or data. Imports no torch.
"""
