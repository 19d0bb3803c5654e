"""What real networks and strangers do to a service, done to live ones."""
