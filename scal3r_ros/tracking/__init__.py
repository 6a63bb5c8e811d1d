"""A pose for every camera frame between chunks, told in the coordinates of the last mapped one."""
