"""In: a configuration and a store. Out: a fine-tuned model, a log, checkpoints; or a probe.

Begin with `loop`: `Trainer.run`. A run starts from what `start` makes. `Trainer.resume` and `identity`
continue a run from what `checkpoints` saved. At the end `publishing` says which epochs become the model. A
new augmentation is a file in `augment`, a new objective a file in `objectives`.
"""
