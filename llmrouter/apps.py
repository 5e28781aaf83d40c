from importlib import import_module

from django.apps import AppConfig


class LLMRouterConfig(AppConfig):
    name = "llmrouter"
    verbose_name = "LLM router"

    def ready(self) -> None:
        """Refuse to boot without a usable master key, and register what the process copies."""
        import_module("llmrouter.options")
        import_module("llmrouter.configuration.publishing")
        import_module("airi_server.kernel.sealing").master_keys()
