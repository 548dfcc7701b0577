"""In: a tagger and uploads. Out: labels over HTTP, and a page for browsers; `beatline serve`.

Begin with `app` (the application), then `program` (uvicorn around it). One process; decoding happens in
children. Needs the extra `serve`. Imports no torch.
"""
