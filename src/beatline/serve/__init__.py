"""In: a tagger and uploads. Out: labels over HTTP, and a page for browsers; `beatline serve`.

Begin with `routes` (a file an endpoint), then `app` (around them) and `program` (uvicorn). The server is
a single process; decoding happens in children. Needs the extra `serve`. Imports no torch.
"""
