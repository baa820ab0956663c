"""`seqtext.api` as a command loads it.

Importing torch makes half a million objects and no garbage. Python looks for it all the same, again and again, and
later among all of these; here they are left out, for a tenth of the time of a short command.
"""

from __future__ import annotations

import gc

gc.disable()
try:
    from seqtext import api
finally:
    gc.freeze()
    gc.enable()

__all__ = ["api"]
