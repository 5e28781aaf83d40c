"""Where sockets are served."""

from __future__ import annotations

from django.urls import path

from chats.sockets.consumers import ChatConsumer, LateChatConsumer

websocket_urlpatterns = [
    path("ws/chat", ChatConsumer.as_asgi()),
    path("ws/v2/chat", LateChatConsumer.as_asgi()),
]
