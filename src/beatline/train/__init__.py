"""In: a configuration and a store. Out: a fine-tuned model, a log, checkpoints; or a probe.

Begin with `loop`. A new augmentation is one file in `augment`, a new objective is one file in `objectives`.
"""
