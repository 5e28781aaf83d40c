from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        """Refuse to boot on a proxy list that cannot be read."""
        from accounts import addresses  # noqa: PLC0415  settings are complete only now

        addresses.trusted_proxies()
