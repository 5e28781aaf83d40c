"""Which pages of the console show chats: what was said is on none but the one that is asked for."""

from __future__ import annotations

from django.contrib import admin

from chats.character_pages import CharacterPages
from chats.characters.models import Character
from chats.chat_pages import ChatPages
from chats.message_pages import MessagePages
from chats.models import Chat, ChatMessage

admin.site.register(Chat, ChatPages)
admin.site.register(ChatMessage, MessagePages)
admin.site.register(Character, CharacterPages)
