"""Settings for the test suite: real PostgreSQL, real Redis, no network beyond loopback."""

from airi_server import env
from airi_server.settings.base import *

ENVIRONMENT = "test"
# Workers of one run share a Redis; each has its own keys and its own channel.
REDIS_PREFIX = f"airi-{env.text('PYTEST_XDIST_WORKER', 'test')}"
CACHES["default"]["KEY_PREFIX"] = f"{REDIS_PREFIX}:cache"
CHANNEL_LAYERS["default"]["CONFIG"]["prefix"] = f"{REDIS_PREFIX}.chats"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ALLOWED_HOSTS = ["*"]
WHITENOISE_USE_FINDERS = True
STATIC_ROOT = None
WHITENOISE_AUTOREFRESH = True

# A pool would outlive the test database it points at.
DATABASES["default"]["OPTIONS"].pop("pool")
