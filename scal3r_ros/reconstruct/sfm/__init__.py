"""Structure from motion as a reconstructor: features and bundle adjustment, no weights of ours."""
