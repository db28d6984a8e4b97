"""The data format: masks, mask words, Scenes, dialogue text, shards, rejects, errors.

Imports nothing of the other packages, and neither torch nor ray: a trainer that only reads shards
needs this package alone.
"""

__version__ = "0.1.0"
