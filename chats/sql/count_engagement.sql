-- count_engagement.sql: the triggers that keep a character's counters equal to their rows.
--
-- In:     rows of character_like and character_bookmark, inserted, deleted or moved
-- Out:    character.likes_count and character.bookmarks_count
-- Rule:   a counter is the number of rows, whoever wrote them and however
-- Locks:  the character's row, at the latest when the row is written; who writes rows of several
--         characters locks these first, in the order of their ids
-- Races:  the update waits for the lock and counts on from what the other transaction left
-- Twin:   tests/chats/test_characters_engagement.py
CREATE FUNCTION chats_count_engagement() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    likes int := (TG_TABLE_NAME = 'character_like')::int;
    bookmarks int := (TG_TABLE_NAME = 'character_bookmark')::int;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE "character"
        SET likes_count = likes_count - likes, bookmarks_count = bookmarks_count - bookmarks
        WHERE id = OLD.character_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE "character"
        SET likes_count = likes_count + likes, bookmarks_count = bookmarks_count + bookmarks
        WHERE id = NEW.character_id;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER character_like_is_counted
AFTER INSERT OR DELETE OR UPDATE OF character_id ON character_like
FOR EACH ROW EXECUTE FUNCTION chats_count_engagement();

CREATE TRIGGER character_bookmark_is_counted
AFTER INSERT OR DELETE OR UPDATE OF character_id ON character_bookmark
FOR EACH ROW EXECUTE FUNCTION chats_count_engagement();
