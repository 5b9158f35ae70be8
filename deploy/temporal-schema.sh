#!/bin/sh
# Create Temporal's two databases, or bring them to the schema of this admin-tools image. Can be repeated.
# The address and the user come from SQL_PLUGIN, SQL_HOST, SQL_PORT, SQL_USER and SQL_PASSWORD, which the tool reads.
set -eu

bring_up_to_date() {
    database=$1
    schema=$2
    temporal-sql-tool --database "$database" create
    temporal-sql-tool --database "$database" setup-schema --version 0.0
    temporal-sql-tool --database "$database" update-schema --schema-name "$schema"
    echo "database $database is at the schema of this release"
}

bring_up_to_date temporal postgresql/v12/temporal
bring_up_to_date temporal_visibility postgresql/v12/visibility
