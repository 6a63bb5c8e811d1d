"""The method: frames in, one correct and bounded map out."""
