"""Settings for a laptop: what `./run` serves with."""

from airi_server.settings.base import *

ENVIRONMENT = "development"
DEBUG = False
# `./run` collects no files: WhiteNoise serves each app's own.
WHITENOISE_USE_FINDERS = True
STATIC_ROOT = None
ALLOWED_HOSTS = ["*"]
