from django.db import migrations

FORWARD = """
CREATE FUNCTION router_revision_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'router_revision is append-only' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER router_revision_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON router_revision
    FOR EACH STATEMENT EXECUTE FUNCTION router_revision_append_only();
"""
BACKWARD = """
DROP TRIGGER router_revision_append_only ON router_revision;
DROP FUNCTION router_revision_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("llmrouter", "0001_router_configuration")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
