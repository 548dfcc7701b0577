"""In: a name, an address, an ordered list of sources. Out: whole files under their final names, a ledger.

Begin with `checkpoints` (models) or `clips` (AudioSet's audio). `http` gets a file and `request` asks for it;
`services` has every address. Nothing else below `publish` uses the network. Imports no torch.
"""
