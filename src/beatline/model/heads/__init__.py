"""In: tokens of a clip. Out: its logits; one module a head, named by the checkpoint's configuration."""
