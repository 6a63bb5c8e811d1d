"""What every node stands on: lifecycle, parameters, conversions, ROS libraries or stand-ins."""
