#!/bin/sh
# Run a command with the empty TEMPORAL_* settings left out.
# compose can pass an empty setting but cannot leave one out, and to Temporal's SDK an empty path or API key is a value.
set -eu

for name in $(env | sed -n 's/^\(TEMPORAL_[A-Z0-9_]*\)=$/\1/p'); do
    unset "$name"
done
exec "$@"
