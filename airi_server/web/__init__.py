"""The web server: how the application is served, in a deployment and by `./run`."""
