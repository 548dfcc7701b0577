"""In: a configuration and a store. Out: a fine-tuned model, a log, checkpoints; or a probe.

Begin with `loop`: `Trainer.run`. A run starts from what `start` makes. `Trainer.resume` and `identity` go on
from what `checkpoints` saved. `publishing` ends it and says which epochs become the model. A new augmentation
is a file in `augment`, a new objective a file in `objectives`.
"""
