"""network -> files on disk: AudioSet's tables, clips and starting checkpoints.

Outside the straight line, before its first arrow. In: what the user named and an ordered list of sources, the
local one always first. Out: whole files under their final names, and a ledger of what is there and what is
missing, and why. `http` gets one file, `services` has every address; `audioset`, `clips` (through `hub` and
`youtube`) and `checkpoints` know what to ask for. Nothing else in beatline uses the network. Imports no
torch.
"""
