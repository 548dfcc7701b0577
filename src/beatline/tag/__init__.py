"""In: recordings of any length, or sound as it comes. Out: labels, events, embeddings, in any format.

Begin with `tagger` (`AudioTagger`), then `result` (what it says of a recording). A new output format goes
into `formats`. Imports no torch.
"""
