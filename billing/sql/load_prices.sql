-- load_prices.sql: every price in force, and the first default version if there is none yet.
--
-- In:     rate numeric, flat bigint: the operator settings, for the first default version
-- Out:    one row a model: model ('' is the default), version, and the columns of a price
-- Rule:   the newest version of a model counts
-- Locks:  none
-- Races:  two processes may both create a first default version: they are equal, the newer counts
-- Twin:   tests/billing/test_prices.py
WITH first AS (
    INSERT INTO price_version
        (model, flux_per_1k_input, flux_per_1k_output, flux_per_1k_cached, flux_per_request,
         minimum_flux, note, created_by, created_at)
    SELECT '', %(rate)s::numeric, %(rate)s::numeric, %(rate)s::numeric, %(flat)s::bigint,
           1, 'first default', 'server', clock_timestamp()
    WHERE NOT EXISTS (SELECT FROM price_version WHERE model = '')
    RETURNING *
)
SELECT DISTINCT ON (model)
       model, id, flux_per_1k_input, flux_per_1k_output, flux_per_1k_cached, flux_per_request,
       minimum_flux, usd_per_1m_input, usd_per_1m_output, usd_per_1m_cached
FROM (SELECT * FROM price_version UNION ALL SELECT * FROM first) AS price
ORDER BY model, id DESC
