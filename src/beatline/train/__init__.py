"""In: a configuration and a store. Out: a fine-tuned model, a log, checkpoints; or a probe.

Begin with `loop` (`Trainer.run`, `Trainer.resume`). A new augmentation is a file in `augment`, a new
objective a file in `objectives`.
"""
