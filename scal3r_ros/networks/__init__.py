"""Networks in torch: one folder a network, and what networks share beside them."""
