from importlib import import_module

from django.apps import AppConfig


class AIRIServerConfig(AppConfig):
    name = "airi_server"

    def ready(self) -> None:
        """Register the system checks; refuse to start on deletion handlers of one name."""
        import_module("airi_server.checks")
        import_module("airi_server.departures")
