#!/usr/bin/env bash
# usage: fuzz.sh DURATION [FOLDER]...
# Runs every fuzz target below the given folders (all by default) for the given time, as many at once as there are
# cores. The targets are found in the source, so a new one is never forgotten. An input that fails is kept under
# testdata/fuzz of its package, where `go test` runs it from then on.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?usage: fuzz.sh DURATION [FOLDER]...}
shift
[ $# -gt 0 ] || set -- .

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'trap "" TERM; kill 0; exit 130' INT # what runs in the background does not hear an interrupt
cache=$(go env GOCACHE)/fuzz/syncagent

# only_late tells whether a run failed for nothing but Go's own race at the end of the time: a worker that is asked for
# one more input when the deadline passes. An input that really fails, or hangs, is named and kept.
only_late() {
	grep -qx ' *context deadline exceeded' "$1" && ! grep -q -e 'Failing input' -e 'hung or terminated' "$1"
}

# fuzz DIR NAME runs one target, and leaves a file named passed or failed.
fuzz() {
	local at="$scratch/$1/$2"
	mkdir -p "$at"
	if (cd "$1" && "$scratch/$1/fuzz.test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$time" -test.parallel 1 \
		-test.fuzzcachedir "$cache/$1") >"$at/output" 2>&1 || only_late "$at/output"; then
		touch "$at/passed"
	else
		touch "$at/failed"
	fi
	echo "fuzz $1 $2 for $time"
	cat "$at/output"
}

pattern='^func \(Fuzz[A-Za-z0-9_]*\)(.*'
packages=$(grep -rl --include='*_test.go' "$pattern" "$@" | xargs -r -n 1 dirname | sed 's/^\.\///' | sort -u)
for dir in $packages; do
	mkdir -p "$scratch/$dir"
	go test -c -fuzz=. -o "$scratch/$dir/fuzz.test" "./$dir" # once for all targets of the package
	for name in $(sed -n "s/$pattern/\1/p" "$dir"/*_test.go | sort); do
		while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
		fuzz "$dir" "$name" &
	done
done
wait
passed=$(find "$scratch" -name passed | wc -l) failed=$(find "$scratch" -name failed | wc -l)
echo "fuzz targets: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
