from django.apps import AppConfig


class RuntimeConfig(AppConfig):
    name = "airi_server.runtime"
    label = "runtime"
    verbose_name = "Operator settings"
