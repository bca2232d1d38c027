"""Names that users type: for the rooms that know nothing of towers, as `clip` answers them."""

from clip.names import did_you_mean, unknown

__all__ = ['did_you_mean', 'unknown']
