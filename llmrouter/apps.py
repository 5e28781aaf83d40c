from importlib import import_module

from django.apps import AppConfig


class LLMRouterConfig(AppConfig):
    name = "llmrouter"
    verbose_name = "LLM router"

    def ready(self) -> None:
        """Refuse to boot without a usable master key; register copies, and the names of models."""
        import_module("llmrouter.configuration.options")
        import_module("llmrouter.configuration.publishing")
        import_module("llmrouter.configuration.lookup")
        import_module("airi_server.kernel.sealing").master_keys()
