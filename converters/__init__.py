"""One file per kind of source: annotation files, as they lie on users' disks, to Scenes. CPU only, no torch."""
