"""In: any sound: path, bytes, stream, array, archive. Out: int16 samples at 16 kHz, mono, and their windows.

Begin with `media`, the only way to decode; `pool` does the same in child processes that may crash.
`signatures` says what a file is, `inputs` what a user means by audio. Imports no torch.
"""
