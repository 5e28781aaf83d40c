from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("llmrouter", "0002_router_revision_append_only")]

    operations = [
        migrations.AlterModelOptions(
            name="routerupstream",
            options={
                "permissions": [("probe_upstream", "Can test upstreams")],
                "verbose_name": "upstream",
            },
        ),
    ]
