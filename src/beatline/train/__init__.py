"""In: a configuration and a store. Out: a fine-tuned model, a log, checkpoints; or a probe.

Begin with `loop`: `Trainer.run`. A run starts from what `start` makes, goes on by `Trainer.resume` and
`identity` from what `checkpoints` saved, and ends with `publishing`, which says which epochs become the
model. A new augmentation is a file in `augment`, a new objective a file in `objectives`.
"""
