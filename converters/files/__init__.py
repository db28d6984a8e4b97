"""Files and folders as data sets have them: streams, archives, tables, and an index of them on disk."""
