"""Pictures on disk: an image is a clip of one frame, so all else is as with videos."""
