"""The few calls of the ROS Python libraries that this package needs, for where they are absent.

Each module has the names, arguments and results of the library it stands in for; the contract tests
in test/nodes/base/test_ros_compat.py run against whichever `ros_compat` found.
"""
