"""In: windows, int16 or float32. Out: `Outputs`: scores, logits, embeddings, by any runtime.

Begin with `base`; one module a runtime, which writes its form and runs it.
"""
