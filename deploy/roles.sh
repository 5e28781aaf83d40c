#!/bin/sh
# Makes the two roles and the database, once, while PostgreSQL's data directory is new.
# In: POSTGRES_PASSWORD, which the owner gets too, and APP_PASSWORD.
set -eu
psql --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" \
    --set=owner="$POSTGRES_PASSWORD" --set=app="$APP_PASSWORD" <<'SQL'
CREATE ROLE airi_owner LOGIN PASSWORD :'owner';
CREATE ROLE airi_app LOGIN PASSWORD :'app';
CREATE DATABASE airi OWNER airi_owner;
SQL
