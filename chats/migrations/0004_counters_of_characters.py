"""Install the triggers that count likes, and drop the indexes that no query can use."""

from importlib import resources

from django.db import migrations

COUNT = resources.files("chats").joinpath("sql/count_engagement.sql").read_text()
COUNT_REVERSE = """
DROP TRIGGER character_like_is_counted ON character_like;
DROP TRIGGER character_bookmark_is_counted ON character_bookmark;
DROP FUNCTION chats_count_engagement();
"""

# Django adds them to every text key, for LIKE; ids are only looked up whole.
DROP_LIKE = """
DROP INDEX character_id_448eb30c_like;
DROP INDEX character_cover_id_1d33c421_like;
DROP INDEX character_cover_character_id_dc23b293_like;
DROP INDEX character_capability_id_20d05c7a_like;
DROP INDEX character_avatar_model_id_da854338_like;
DROP INDEX character_i18n_id_8ae8cfb2_like;
DROP INDEX character_prompt_id_f7ff7ff5_like;
"""
DROP_LIKE_REVERSE = """
CREATE INDEX character_id_448eb30c_like ON "character" (id text_pattern_ops);
CREATE INDEX character_cover_id_1d33c421_like ON character_cover (id text_pattern_ops);
CREATE INDEX character_cover_character_id_dc23b293_like
    ON character_cover (character_id text_pattern_ops);
CREATE INDEX character_capability_id_20d05c7a_like ON character_capability (id text_pattern_ops);
CREATE INDEX character_avatar_model_id_da854338_like
    ON character_avatar_model (id text_pattern_ops);
CREATE INDEX character_i18n_id_8ae8cfb2_like ON character_i18n (id text_pattern_ops);
CREATE INDEX character_prompt_id_f7ff7ff5_like ON character_prompt (id text_pattern_ops);
"""


class Migration(migrations.Migration):
    dependencies = [("chats", "0003_characters")]
    operations = [
        migrations.RunSQL(COUNT, COUNT_REVERSE),
        migrations.RunSQL(DROP_LIKE, DROP_LIKE_REVERSE),
    ]
