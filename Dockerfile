# An instance, and every command of manage.py. The base is an argument: a name without a host.
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
WORKDIR /srv/airi
ENV PYTHONDONTWRITEBYTECODE=1
COPY requirements.txt ./
RUN python -m venv /opt/airi && /opt/airi/bin/pip install --no-cache-dir --require-hashes -r requirements.txt
COPY manage.py ./
COPY accounts accounts
COPY airi_server airi_server
COPY billing billing
COPY chats chats
COPY llmrouter llmrouter
COPY templates templates
COPY docs/openapi.json docs/asyncapi.json docs/websocket.d.ts docs/websocket.md docs/websocket.schema.json docs/
# Static files have names by their content, made with the settings that serve them. Nothing is
# connected to, and nothing of these values stays in the image.
RUN DJANGO_SETTINGS_MODULE=airi_server.settings.production \
    SECRET_KEY="$(/opt/airi/bin/python -c 'import secrets; print(secrets.token_urlsafe(48))')" \
    LLM_ROUTER_MASTER_KEY="$(/opt/airi/bin/python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())')" \
    DATABASE_URL=postgresql://nobody:nothing@127.0.0.1/none \
    REDIS_URL=redis://127.0.0.1/0 \
    ALLOWED_HOSTS=build.example.com \
    API_SERVER_URL=https://build.example.com \
    /opt/airi/bin/python manage.py collectstatic --noinput

FROM ${PYTHON}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin airi
WORKDIR /srv/airi
COPY --from=build /opt/airi /opt/airi
COPY --from=build /srv/airi /srv/airi
ENV PATH=/opt/airi/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=airi_server.settings.production
USER 10001
EXPOSE 8000
# SHUTDOWN_DELAY_S + SHUTDOWN_GRACE_S + 35 s: give the engine that long (docs/deploy.md).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
CMD ["python", "manage.py", "serve", "--host", "0.0.0.0", "--port", "8000"]
