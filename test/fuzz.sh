#!/bin/sh
# usage: fuzz.sh DURATION [PACKAGE-DIR]...
# Runs every fuzz target below the given folders (all by default) for the given time, one after the other. The targets
# are found in the source, so a new one is never forgotten. Inputs that fail are kept by go test under testdata/fuzz.
set -eu
cd "$(dirname "$0")/.."
time=${1:?usage: fuzz.sh DURATION [PACKAGE-DIR]...}
shift
[ $# -gt 0 ] || set -- .

targets=$(grep -rho --include='*_test.go' --with-filename '^func Fuzz[A-Za-z0-9_]*(' "$@" | sed 's/(//' | sort)
[ -n "$targets" ] || { echo 'fuzz: no targets found' >&2; exit 1; }

passed=0 failed=0
for t in $(echo "$targets" | sed 's/func //; s/^\.\///'); do
	dir=$(dirname "${t%%:*}") name=${t##*:}
	echo "fuzz $dir $name $time"
	if go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$dir"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done
echo "fuzz targets: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
