"""From messages to frames and measurements: subscriptions, decoding, bounded queues."""
