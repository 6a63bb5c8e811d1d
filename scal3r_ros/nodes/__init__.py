"""The ROS 2 nodes: `mapping_node`, `reconstruction_node`, `context_sync_node`."""
