"""In: an encoded file. Out: blocks of mono samples at the file's own rate; one module a decoder.

`media` in the room above chooses between them.
"""
