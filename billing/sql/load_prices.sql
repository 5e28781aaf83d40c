-- load_prices.sql: every price in force, and the first default version if there is none yet.
--
-- In:     rate numeric, flat bigint: the operator settings, for the first default version
-- Out:    one row a model: model ('' is the default), version, and the columns of a price. No
--         default if another process is just making the first one: run it again.
-- Rule:   the newest version of a model counts; the first default is version 0, so that it is
--         older than whatever an operator publishes at the same time
-- Locks:  the new row; a second caller waits on its key and then inserts nothing
-- Twin:   tests/billing/test_prices.py
WITH first AS (
    INSERT INTO price_version
        (id, model, flux_per_1k_input, flux_per_1k_output, flux_per_1k_cached, flux_per_request,
         minimum_flux, note, created_by, created_at)
    SELECT 0, '', %(rate)s::numeric, %(rate)s::numeric, %(rate)s::numeric, %(flat)s::bigint,
           1, 'first default', 'server', clock_timestamp()
    WHERE NOT EXISTS (SELECT FROM price_version WHERE model = '')
    ON CONFLICT (id) DO NOTHING
    RETURNING *
)
SELECT DISTINCT ON (model)
       model, id, flux_per_1k_input, flux_per_1k_output, flux_per_1k_cached, flux_per_request,
       minimum_flux, usd_per_1m_input, usd_per_1m_output, usd_per_1m_cached
FROM (SELECT * FROM price_version UNION ALL SELECT * FROM first) AS price
ORDER BY model, id DESC
