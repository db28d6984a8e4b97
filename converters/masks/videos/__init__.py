"""Sources of masks whose images are frames of videos."""
