from importlib import import_module

from django.apps import AppConfig
from django.contrib.admin import site
from django.contrib.admin.apps import AdminConfig
from django.utils.module_loading import autodiscover_modules


class ConsoleConfig(AppConfig):
    name = "airi_server.admin"
    label = "console"

    def ready(self) -> None:
        """Write down who logs in."""
        import_module("airi_server.admin.logins").listen()


class ConsoleAdminConfig(AdminConfig):
    """Django's admin with our site, which itself is made of pages in the apps' `admin` wings.

    So importing a wing registers nothing, and each app says in `admin/registry.py` which of its
    tables have pages.
    """

    default_site = "airi_server.admin.site.ConsoleSite"

    def ready(self) -> None:
        super().ready()
        autodiscover_modules("admin.registry", register_to=site)
