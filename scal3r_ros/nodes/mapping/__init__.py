"""Inside `mapping_node`: the worker that owns the mapper, its commands, services and health."""
