-- keep_leavers_out.sql: the trigger that lets nobody in who has left a chat by themselves.
--
-- In:     rows of chat_member, inserted or given another chat or user
-- Out:    the claim chat_member_has_not_left fails if chat_leaver has the chat and the user
-- Rule:   whoever comes back takes their row of chat_leaver away first, in the same transaction
-- Locks:  none of its own; whoever changes the members holds the chat's
-- Races:  leaving and being put in hold the same lock
-- Twin:   tests/chats/test_leavers.py
CREATE FUNCTION chats_keep_leavers_out() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM chat_leaver l WHERE l.chat_id = NEW.chat_id AND l.user_id = NEW.user_id
    ) THEN
        RAISE check_violation USING
            MESSAGE = 'new row for relation "chat_member" violates "chat_member_has_not_left"',
            TABLE = 'chat_member', CONSTRAINT = 'chat_member_has_not_left';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER chat_member_has_not_left
BEFORE INSERT OR UPDATE OF chat_id, user_id ON chat_member
FOR EACH ROW WHEN (NEW.user_id IS NOT NULL) EXECUTE FUNCTION chats_keep_leavers_out();

-- Also for what is copied in by a session that plays a replica.
ALTER TABLE chat_member ENABLE ALWAYS TRIGGER chat_member_has_not_left;
