from importlib import import_module

from django.apps import AppConfig

from airi_server.kernel import lost_connections


class AIRIServerConfig(AppConfig):
    name = "airi_server"

    def ready(self) -> None:
        """Register the system checks; refuse to start on deletion handlers of one name."""
        import_module("airi_server.checks")
        import_module("airi_server.user_deletion")
        lost_connections.drain_when_one_is_met()
