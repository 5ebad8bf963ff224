#!/bin/sh
# What a relay costs, with its channels in memory and, where redis-server is installed, in a Redis of this script's own.
#   benches/relay.sh PATH-OF-RELAY-LOAD
set -eu
load=$1
place=$(mktemp -d)
redis=

tidy() {
	[ -z "$redis" ] || kill "$redis" 2>/dev/null || true
	rm -rf "$place"
}
trap tidy EXIT INT TERM

measure() {
	"$load" --kind idle --channels 5000 "$@"
	"$load" --kind ping --seconds 5 "$@"
	"$load" --kind flow --channels 200 --rate 20 --size 300 --seconds 5 "$@"
	"$load" --kind bulk --size 262144 --seconds 5 "$@"
	"$load" --kind storm --rate 300 --seconds 5 "$@"
}

measure
if command -v redis-server >/dev/null; then
	redis-server --port 0 --unixsocket "$place/redis" --save '' --maxmemory-policy noeviction >/dev/null &
	redis=$!
	while [ ! -S "$place/redis" ]; do sleep 0.1; done
	measure --redis "redis+unix://$place/redis"
fi
