"""Networks of the CUT3R family as a reconstructor: images one by one, blocks rigid inside."""
