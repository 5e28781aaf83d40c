"""Room for an upstream's own usage report, where it is not charged as it stands; and more words."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0007_write_in_sets")]
    operations = [
        migrations.AddField(
            model_name="llmrequestlog", name="reported", field=models.JSONField(null=True)
        ),
        migrations.AlterField(
            model_name="llmrequestlog",
            name="kind",
            field=models.TextField(
                choices=[("chat", "Chat"), ("tts", "Tts"), ("embedding", "Embedding")]
            ),
        ),
        migrations.AlterField(
            model_name="llmrequestlog",
            name="outcome",
            field=models.TextField(
                choices=[
                    ("completed", "Completed"),
                    ("failed", "Failed"),
                    ("client_gone", "Client Gone"),
                    ("shutdown", "Shutdown"),
                    ("deadline", "Deadline"),
                    ("upstream_broken", "Upstream Broken"),
                    ("upstream_stalled", "Upstream Stalled"),
                    ("upstream_error", "Upstream Error"),
                    ("server_error", "Server Error"),
                    ("orphaned", "Orphaned"),
                ],
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="llmrequestlog",
            name="usage_source",
            field=models.TextField(
                choices=[
                    ("reported", "Reported"),
                    ("completed", "Completed"),
                    ("bounded", "Bounded"),
                    ("counted", "Counted"),
                    ("estimated", "Estimated"),
                    ("none", "None"),
                ],
                default="none",
            ),
        ),
    ]
