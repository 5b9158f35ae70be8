#!/bin/sh
# Make the roles beside the owner of the tables, or bring them up to date. Can be repeated.
# fastbell_app, of API and workers, reads and writes rows and changes no tables; temporal owns Temporal's databases alone.
# The owner is whom PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE name: psql reads them. It needs no superuser: it
# has to own the database, with CREATEROLE and CREATEDB.
set -eu

: "${APPLICATION_PASSWORD:?is the password of fastbell_app}"
: "${TEMPORAL_PASSWORD:?is the password of temporal}"

# Passwords come through the environment, not through arguments that others see.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<'SQL'
\getenv application_password APPLICATION_PASSWORD
\getenv temporal_password TEMPORAL_PASSWORD
SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY['fastbell_app', 'temporal']) AS name
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE fastbell_app LOGIN NOCREATEDB NOCREATEROLE PASSWORD :'application_password';
ALTER ROLE temporal LOGIN CREATEDB NOCREATEROLE PASSWORD :'temporal_password';
SELECT format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC; GRANT CONNECT ON DATABASE %I TO fastbell_app',
    current_database(), current_database()) \gexec
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO fastbell_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO fastbell_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO fastbell_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO fastbell_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO fastbell_app;
SQL

# Databases that the owner made for Temporal, before it had a role of its own.
for database in temporal temporal_visibility; do
    exists=$(psql --no-psqlrc --quiet --tuples-only --no-align \
        --command "SELECT 1 FROM pg_database WHERE datname = '$database' AND datdba <> 'temporal'::regrole")
    [ -n "$exists" ] || continue
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname "$database" <<'SQL'
ALTER SCHEMA public OWNER TO temporal;
SELECT format('ALTER TABLE public.%I OWNER TO temporal', tablename) FROM pg_tables
    WHERE schemaname = 'public' AND tableowner <> 'temporal' \gexec
SELECT format('ALTER FUNCTION %s OWNER TO temporal', oid::regprocedure) FROM pg_proc AS function
    WHERE pronamespace = 'public'::regnamespace AND proowner <> 'temporal'::regrole
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = function.oid AND deptype = 'e') \gexec
SELECT format('ALTER DATABASE %I OWNER TO temporal', current_database()) \gexec
SQL
done
echo "roles fastbell_app and temporal are up to date"
