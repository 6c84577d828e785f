#!/bin/sh
# Fails if the generated code in the work tree is not what its sources give.
set -eu
cd "$(dirname "$0")/.."

sums() { find . -name '*.pb.go' -o -name '*.connect.go' | sort | xargs -r sha256sum; }

before=$(sums)
make -s proto
if [ "$(sums)" != "$before" ]; then
	echo 'generated code was out of date: commit what `make proto` wrote' >&2
	exit 1
fi
