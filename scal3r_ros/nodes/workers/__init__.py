"""Several GPUs over ROS: chunks out, predictions back, plans and signs of life between."""
