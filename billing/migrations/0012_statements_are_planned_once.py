"""Install the functions of the hot path again: planned once a session, and reports are kept."""

from importlib import resources

from django.db import migrations

NAMES = ("open_requests", "mark_requests", "settle_requests")
REPORTS = {
    ", reported jsonb": "",
    " reported, position": " position",
    " reported = e.reported,": "",
}


def statement(name):
    return resources.files("billing").joinpath(f"sql/{name}.sql").read_text()


def without_reports(text):
    """The column goes with the migration before."""
    for added, before in REPORTS.items():
        text = text.replace(added, before)
    return text


class Migration(migrations.Migration):
    dependencies = [("billing", "0011_entries_follow_and_rows_stay")]
    operations = [
        migrations.RunSQL(
            [statement(name) for name in NAMES], without_reports(statement("settle_requests"))
        ),
    ]
