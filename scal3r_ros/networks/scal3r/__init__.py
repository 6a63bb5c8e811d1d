"""The Scal3R network: image encoder, aggregator with adaptive memory units, camera and dense
heads."""
