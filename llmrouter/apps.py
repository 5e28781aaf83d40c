from django.apps import AppConfig


class LLMRouterConfig(AppConfig):
    name = "llmrouter"
    verbose_name = "LLM router"

    def ready(self) -> None:
        """Refuse to boot without a usable master key, and register what the process copies."""
        from llmrouter import envelope, options, publishing  # noqa: F401, PLC0415  models first

        envelope.master_keys()
