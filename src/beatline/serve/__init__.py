"""The server: uploads in, labels out, over HTTP; `beatline serve`.

In: a tagger. Out: an application for uvicorn (`app.create_app`), and the program around it (`program.run`).
One process; decoding happens in children. Needs the extra `serve`. Imports no torch.
"""
