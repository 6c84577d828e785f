#!/usr/bin/env bash
# usage: fuzz.sh DURATION [FOLDER]...
# Runs every fuzz target below the given folders (all by default) for the given time, one after the other. The targets
# are found in the source, so a new one is never forgotten. An input that fails is kept under testdata/fuzz of its
# package, where `go test` runs it from then on.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?usage: fuzz.sh DURATION [FOLDER]...}
shift
[ $# -gt 0 ] || set -- .

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
cache=$(go env GOCACHE)/fuzz/syncagent

# only_late tells whether a run failed for nothing but Go's own race at the end of the time: a worker that is asked for
# one more input when the deadline passes. An input that really fails, or hangs, is named and kept.
only_late() {
	grep -qx ' *context deadline exceeded' "$scratch/output" && ! grep -q -e 'Failing input' -e 'hung or terminated' "$scratch/output"
}

pattern='^func \(Fuzz[A-Za-z0-9_]*\)(.*'
packages=$(grep -rl --include='*_test.go' "$pattern" "$@" | xargs -r -n 1 dirname | sed 's/^\.\///' | sort -u)
passed=0 failed=0
for dir in $packages; do
	go test -c -fuzz=. -o "$scratch/fuzz.test" "./$dir" # once for all targets of the package
	for name in $(sed -n "s/$pattern/\1/p" "$dir"/*_test.go | sort); do
		echo "fuzz $dir $name for $time"
		if (cd "$dir" && "$scratch/fuzz.test" -test.run '^$' -test.fuzz "^$name\$" -test.fuzztime "$time" \
			-test.fuzzcachedir "$cache/$dir") 2>&1 | tee "$scratch/output" || only_late; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
		fi
	done
done
echo "fuzz targets: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
