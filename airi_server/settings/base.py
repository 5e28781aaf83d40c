"""Settings every environment shares. No secret has a default here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.templatetags.static import static
from psycopg.conninfo import conninfo_to_dict

from airi_server import env
from airi_server.settings import hardening

BASE_DIR = Path(__file__).resolve().parents[2]
VERSION = "0.1.0"

SECRET_KEY = env.text("SECRET_KEY")
DEBUG = False
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS") or ["127.0.0.1", "localhost", "[::1]"]
CSRF_TRUSTED_ORIGINS = env.origins("CSRF_TRUSTED_ORIGINS")
ADDITIONAL_TRUSTED_ORIGINS = env.origins("ADDITIONAL_TRUSTED_ORIGINS")
V1_CORS_ORIGINS = env.origins("V1_CORS_ORIGINS", wildcard=True)

FIRST_PARTY_APPS = [
    "airi_server",
    "airi_server.runtime",
    "airi_server.admin.apps.ConsoleConfig",
    "accounts",
    "billing",
    "llmrouter",
    "chats",
]
INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "airi_server.admin.apps.ConsoleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *FIRST_PARTY_APPS,
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "airi_server.web.hosts.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "airi_server.urls"
ASGI_APPLICATION = "airi_server.asgi.application"
AUTH_USER_MODEL = "accounts.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTHENTICATION_BACKENDS = ["accounts.backends.AccountBackend"]
# E-mails are unique case-insensitively, by a constraint on their lower case.
SILENCED_SYSTEM_CHECKS = ["auth.W004"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 8},
    },
]
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
STATIC_URL = "/static/"
STATIC_ROOT: Path | None = BASE_DIR / "staticfiles"
APPEND_SLASH = False
CSRF_FAILURE_VIEW = "airi_server.web.error_responses.stale_form"
DEVICE_COOKIE_NAME = "airi_device"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

# --- The operators' console ---------------------------------------------------------------

ADMIN_PATH = env.word("ADMIN_PATH", "admin")
hardening.insist({"ADMIN_PATH": ADMIN_PATH})
ADMIN_EMAILS = [address.lower() for address in env.words("ADMIN_EMAILS")]
LOGIN_REDIRECT_URL = "admin:index"
UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "AIRI",
    "SITE_HEADER": "AIRI server",
    "SITE_SYMBOL": "graph_3",
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda _request: static("console/favicon.svg"),
        }
    ],
    "SITE_URL": None,
    "SHOW_VIEW_ON_SITE": False,
    "LOGIN": {"form": "airi_server.admin.login.LoginForm"},
    "SHOW_BACK_BUTTON": True,
    "ENVIRONMENT": "airi_server.admin.navigation.environment",
    "STYLES": [lambda _request: static("console/console.css")],
    "SCRIPTS": [lambda _request: static("console/once.js")],
    "SIDEBAR": {
        "show_search": True,
        "navigation": "airi_server.admin.navigation.groups",
    },
}

# --- Storage ------------------------------------------------------------------------------

_database = conninfo_to_dict(env.database_url("DATABASE_URL"))
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _database.pop("dbname", ""),
        "USER": _database.pop("user", ""),
        "PASSWORD": _database.pop("password", ""),
        # Several are libpq's to try, in this order; `target_session_attrs` says which will do.
        "HOST": _database.pop("host", ""),
        "PORT": _database.pop("port", 5432),
        # Threads come and go under ASGI, so connections belong to a pool, not to a thread.
        "CONN_MAX_AGE": 0,
        "OPTIONS": {
            # Away, it is 503 for calls that wait; the pool's own half a minute is too long.
            "pool": {
                "min_size": 0,
                "max_size": env.integer("DB_POOL_MAX", default=10),
                "timeout": 5,
            },
            "options": "-c lock_timeout=2s -c statement_timeout=60s",
            # For both ways to the database, and so is sslmode and the like: a peer that is gone
            # without a word is noticed in seconds.
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
            **_database,
        },
    }
}
# The asynchronous pool of the hot path; group commit needs few connections (ADR 0004).
HOT_POOL_MAX = env.integer("HOT_POOL_MAX", default=16, minimum=4, maximum=64)
HOT_POOL_TIMEOUT_S = env.integer("HOT_POOL_TIMEOUT_S", default=2, maximum=60)

REDIS_URL = env.url("REDIS_URL", schemes=("redis", "rediss"))
REDIS_PREFIX = env.text("REDIS_PREFIX", "airi")
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": f"{REDIS_PREFIX}:cache",
        "OPTIONS": {
            "SOCKET_CONNECT_TIMEOUT": 1,
            "SOCKET_TIMEOUT": 0.5,
            "IGNORE_EXCEPTIONS": True,
        },
    }
}

# What instances tell each other about chats; the pub/sub layer survives a restart of Redis.
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {
            "hosts": [
                {
                    "address": REDIS_URL,
                    # A subscriber hears nothing for long: the default of 5 s would cut it off.
                    "socket_timeout": None,
                    "socket_connect_timeout": 2,
                    "socket_keepalive": True,
                    "max_connections": 8,
                }
            ],
            "prefix": f"{REDIS_PREFIX}.chats",
        },
    }
}

# --- The gateway --------------------------------------------------------------------------

LLM_ROUTER_MASTER_KEY = env.key("LLM_ROUTER_MASTER_KEY", size=32)
LLM_ROUTER_MASTER_KEY_PREVIOUS = env.key("LLM_ROUTER_MASTER_KEY_PREVIOUS", "", size=32)
API_SERVER_URL = env.url("API_SERVER_URL", "http://127.0.0.1:8000", schemes=("http", "https"))
WEB_APP_URL = env.url("WEB_APP_URL", "https://airi.moeru.ai", schemes=("http", "https"))
INSTANCE_ID = env.word("SERVER_INSTANCE_ID", "")
MAX_BODY_BYTES = env.integer("MAX_BODY_BYTES", default=1_048_576)
MAX_GATEWAY_BODY_BYTES = env.integer("MAX_GATEWAY_BODY_BYTES", default=33_554_432)
MAX_KEY_BODIES_BYTES = env.integer("MAX_KEY_BODIES_BYTES", default=67_108_864)
MAX_BODIES_BYTES = env.integer("MAX_BODIES_BYTES", default=536_870_912)
AIRI_FAST_PATH = env.choice("AIRI_FAST_PATH", "on", among=("on", "off"))
SHUTDOWN_DELAY_S = env.integer("SHUTDOWN_DELAY_S", default=0, minimum=0, maximum=600)
SHUTDOWN_GRACE_S = env.integer("SHUTDOWN_GRACE_S", default=25, maximum=3600)
TRUSTED_PROXIES = env.words("TRUSTED_PROXIES")

# --- Telemetry ----------------------------------------------------------------------------

OTEL_EXPORTER_OTLP_ENDPOINT = env.url("OTEL_EXPORTER_OTLP_ENDPOINT", "", schemes=("http", "https"))
OTEL_EXPORTER_OTLP_HEADERS = env.text("OTEL_EXPORTER_OTLP_HEADERS", "")
OTEL_SERVICE_NAMESPACE = env.text("OTEL_SERVICE_NAMESPACE", "airi")
OTEL_SERVICE_NAME = env.text("OTEL_SERVICE_NAME", "server")
OTEL_TRACES_SAMPLING_RATIO = env.ratio("OTEL_TRACES_SAMPLING_RATIO", default=1.0)
OTEL_METRIC_EXPORT_INTERVAL_MS = env.integer("OTEL_METRIC_EXPORT_INTERVAL_MS", default=15_000)

LOG_LEVEL = env.level("LOG_LEVEL", "INFO")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "airi_server.logging.JSONFormatter"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "json",
            "filters": ["aborted_streams"],
        }
    },
    "filters": {"aborted_streams": {"()": "airi_server.logging.AbortedStreamFilter"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "uvicorn": {"level": "WARNING", "propagate": True, "handlers": []},
        "uvicorn.error": {"level": "WARNING", "propagate": True, "handlers": []},
        "httpx": {"level": "WARNING"},
        # It would write down the headers of answers.
        "httpcore": {"level": "WARNING"},
        # One traceback a second while Redis is away; `chats.fanout` says it once.
        "channels_redis": {"level": "CRITICAL"},
        # What crashes is logged by `error_responses`, once; this is for a 5xx that was not logged.
        "django.request": {"level": "ERROR"},
        # A traceback for each request that anybody can send; `error_responses` says it in a line.
        "django.security": {"level": "CRITICAL"},
        "django.security.csrf": {"level": "WARNING"},
        "django.security.SuspiciousSession": {"level": "WARNING"},
    },
}
