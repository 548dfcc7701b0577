"""In: windows of samples, or a checkpoint of any family. Out: scores, logits, embeddings.

Begin with `tagger` (waveform to logits); `engines` is the only way from windows to scores,
`checkpoints` the only reader of model files. `geometry` alone turns samples into frames, patches, steps and
seconds.
"""
