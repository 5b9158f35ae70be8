#!/bin/sh
# Create the namespace and its search attributes where they are missing. Can be repeated.
# The server is the one that TEMPORAL_ADDRESS, TEMPORAL_API_KEY and TEMPORAL_TLS_* name: the temporal CLI reads them.
set -eu

: "${TEMPORAL_ADDRESS:?names the server, as host:port}"
: "${TEMPORAL_NAMESPACE:?names the namespace}"
retention=${TEMPORAL_RETENTION:-72h}
patience=${TEMPORAL_SETUP_PATIENCE:-120} # seconds, for each step

# Run a command once a second until it succeeds; when patience ends, show why it did not.
until_done() {
    what=$1
    shift
    deadline=$(($(date +%s) + patience))
    until answer=$("$@" 2>&1); do
        if [ "$(date +%s)" -ge "$deadline" ]; then
            echo "$what: not after $patience s" >&2
            echo "$answer" >&2
            exit 1
        fi
        sleep 1
    done
    echo "$what: done"
}

namespace() {
    temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" ||
        temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$retention"
}

# A new namespace is known to the whole server only after some seconds, hence the repeating.
search_attribute() {
    temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE" | grep -Eq "^ *$1 +Keyword *$" ||
        temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" --name "$1" --type Keyword
}

until_done "namespace $TEMPORAL_NAMESPACE" namespace
for name in SessionId ConversationId MessageId ReminderState HandoffState; do
    until_done "search attribute $name" search_attribute "$name"
done
