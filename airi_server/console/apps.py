from importlib import import_module

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class ConsoleConfig(AppConfig):
    name = "airi_server.console"
    label = "console"

    def ready(self) -> None:
        """Write down who logs in."""
        import_module("airi_server.console.logins").listen()


class ConsoleAdminConfig(AdminConfig):
    default_site = "airi_server.console.site.ConsoleSite"
