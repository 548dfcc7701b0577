"""In: windows, int16 or float32. Out: `Outputs`: scores, logits, embeddings, by any runtime.

Begin with `base` (`Engine.outputs`). Each runtime has a module, which writes its form and runs it, and a name
in `graphs.RUNTIMES`.
"""
