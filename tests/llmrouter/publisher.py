"""An operator who calls `/api/admin/config/router` from a program."""

from __future__ import annotations

import json
from typing import Any

from tests.factories import accounts as make

URL = "/api/admin/config/router"
EMAIL = "root@example.com"


class Publisher:
    """Calls with its own key, or with the one that is given."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.user = make.user(email=EMAIL, verified=True)
        self.token = make.api_key(owner=self.user)[1]

    def get(self, *, token: str | None = "") -> Any:
        return self._call("GET", None, token)

    def post(self, body: Any, *, token: str | None = "") -> Any:
        return self._call("POST", body, token)

    def seed(self, *chosen: dict[str, Any], **request: Any) -> Any:
        return self.post({"slices": chosen, **request})

    def _call(self, method: str, body: Any, token: str | None) -> Any:
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        token = self.token if token == "" else token
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self.client.generic(method, URL, text, "application/json", headers=headers)
