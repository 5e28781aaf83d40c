from importlib import import_module

from django.apps import AppConfig


class AIRIServerConfig(AppConfig):
    name = "airi_server"

    def ready(self) -> None:
        """Register the system checks."""
        import_module("airi_server.checks")
