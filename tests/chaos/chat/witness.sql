-- witness.sql: what the rows alone do not tell, noted by PostgreSQL in the same transaction.
--
-- Out:    chaos_number     every number that was given to a message, also those it has lost since
--         chaos_departure  how far a chat was when somebody left it; both hold the chat's lock
-- Rule:   noted by the owner of the notes, whose role the server does not have
CREATE TABLE chaos_number (chat_id text NOT NULL, seq bigint NOT NULL);
CREATE TABLE chaos_departure (
    id bigint GENERATED ALWAYS AS IDENTITY, chat_id text NOT NULL, user_id text NOT NULL,
    seq bigint NOT NULL
);

CREATE FUNCTION chaos_note_number() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO chaos_number VALUES (NEW.chat_id, NEW.seq);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_note_number AFTER INSERT OR UPDATE OF seq ON chat_message
FOR EACH ROW EXECUTE FUNCTION chaos_note_number();

CREATE FUNCTION chaos_note_departure() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO chaos_departure (chat_id, user_id, seq)
    SELECT OLD.chat_id, OLD.user_id, c.last_seq FROM chat c WHERE c.id = OLD.chat_id;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_note_departure AFTER DELETE ON chat_member
FOR EACH ROW EXECUTE FUNCTION chaos_note_departure();
