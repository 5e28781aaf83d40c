"""Which pages of the console show chats: what was said is on none but the one that is asked for."""

from __future__ import annotations

from django.contrib import admin

from chats.admin.characters import CharacterPages
from chats.admin.chats import ChatPages
from chats.admin.messages import MessagePages
from chats.characters.models import Character
from chats.models import Chat, ChatMessage

admin.site.register(Chat, ChatPages)
admin.site.register(ChatMessage, MessagePages)
admin.site.register(Character, CharacterPages)
