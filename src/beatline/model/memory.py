"""How a process holds its memory: large pages for PyTorch's tensors, and what is free given back.

Outside the straight line. `import beatline` asks for the pages, `train` gives back. Imports no torch.
`docs/decisions/0012` has what it is worth.
"""

import ctypes
import os
import sys


def use_large_pages() -> None:
    """Tensors of 2 MB and more lie in pages of 2 MB where Linux offers them: PyTorch reads this variable when
    it makes its first tensor.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def give_back() -> None:
    """Returns to the system what is free in C's heap, where that is glibc's; what lies between two blocks in
    use stays there otherwise.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
