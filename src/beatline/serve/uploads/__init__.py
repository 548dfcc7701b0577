"""In: requests that bring files. Out: their sound as samples on disk, within limits of size, time and space.

Begin with `intake`, which a route uses; `multipart` reads bodies, `spool` counts the disk, `decoding` makes
samples.
"""
