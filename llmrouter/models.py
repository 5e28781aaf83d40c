"""Where Django looks for an app's tables; they are those of the router's configuration."""

from llmrouter.configuration.models import (
    RouterDefaults,
    RouterKey,
    RouterModel,
    RouterRevision,
    RouterUpstream,
)

__all__ = ["RouterDefaults", "RouterKey", "RouterModel", "RouterRevision", "RouterUpstream"]
