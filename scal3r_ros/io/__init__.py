"""Frames in (folder, video, rosbag2) and results out (trajectory, cloud, report, pictures)."""
