"""From map updates to messages: poses, clouds, transforms, the live view."""
