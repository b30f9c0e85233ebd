"""What scripts and tests embed where nothing may be downloaded: a demo corpus, and models with random weights."""
