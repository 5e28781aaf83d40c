-- read_schema.sql: what the database insists on, item by item, in its own words.
--
-- In:     tables text[]: whose
-- Out:    place (the table), kind, name, definition, state, body; the body is what a trigger runs
--         state: on | always | replica | off (triggers, and what foreign keys rest on), or invalid
-- Rule:   names alone prove nothing: one may stand on another table, not be valid, or be switched
--         off, and a function may have been replaced behind its trigger
-- Locks:  none
-- Twin:   tests/airi_server/test_schema.py
WITH place AS (
    SELECT oid, relname FROM pg_class
    WHERE relname = ANY (%(tables)s::text[]) AND relkind IN ('r', 'p') AND pg_table_is_visible(oid)
)
SELECT p.relname AS place, 'column' AS kind, a.attname AS name, 'NOT NULL' AS definition,
       'on' AS state, NULL AS body
FROM place p JOIN pg_attribute a ON a.attrelid = p.oid
WHERE a.attnum > 0 AND a.attnotnull AND NOT a.attisdropped
UNION ALL
SELECT p.relname, 'constraint', c.conname, pg_get_constraintdef(c.oid, true),
       CASE WHEN NOT c.convalidated THEN 'invalid'
            WHEN EXISTS (SELECT FROM pg_trigger t
                         WHERE t.tgconstraint = c.oid AND t.tgenabled NOT IN ('O', 'A')) THEN 'off'
            ELSE 'on' END,
       NULL
FROM place p JOIN pg_constraint c ON c.conrelid = p.oid
WHERE c.contype IN ('c', 'f', 'p', 'u', 'x')
UNION ALL
SELECT p.relname, 'index', c.relname, pg_get_indexdef(i.indexrelid, 0, true),
       CASE WHEN i.indisvalid AND i.indisready AND i.indislive THEN 'on' ELSE 'invalid' END, NULL
FROM place p
JOIN pg_index i ON i.indrelid = p.oid
JOIN pg_class c ON c.oid = i.indexrelid
UNION ALL
SELECT p.relname, 'trigger', t.tgname, pg_get_triggerdef(t.oid, true),
       CASE t.tgenabled WHEN 'A' THEN 'always' WHEN 'O' THEN 'on'
                        WHEN 'R' THEN 'replica' ELSE 'off' END,
       concat_ws(' ', l.lanname, CASE WHEN f.prosecdef THEN 'SECURITY DEFINER' END,
                 array_to_string(f.proconfig, ' '), btrim(f.prosrc, E' \n'))
FROM place p
JOIN pg_trigger t ON t.tgrelid = p.oid AND NOT t.tgisinternal
JOIN pg_proc f ON f.oid = t.tgfoid
JOIN pg_language l ON l.oid = f.prolang
UNION ALL
SELECT p.relname, 'rule', r.rulename, pg_get_ruledef(r.oid, true), 'on', NULL
FROM place p JOIN pg_rewrite r ON r.ev_class = p.oid
ORDER BY place, kind, name
