"""In: labelled audio in any form: tables, folders, archives, official sets. Out: a manifest, then a store.

Begin with `manifest` (which clips, labels, splits), then `prepare` (each clip decoded once) and `store`
(any clip's samples and targets). A new data set is a file in `manifest/sets`. Imports no torch.
"""
