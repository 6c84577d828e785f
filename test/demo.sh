#!/bin/sh
# usage: demo.sh SYNCAGENT
# Three agents on this machine, on free ports and in a temporary directory: they form a network, mirror a tree to disk
# and run a trigger; one is cut off, both sides write, it comes back, and all three are equal. Prints what a user would
# type and what the commands answer. Exit 0 if everything went as told; leaves nothing behind.
set -eu

bin=$(cd "$(dirname "${1:?usage: demo.sh SYNCAGENT}")" && pwd)
started=$(date +%s)
base=${TMPDIR:-/tmp}
[ ${#base} -le 60 ] || base=/tmp # the path of a unix socket has at most 107 bytes
work=$(mktemp -d "$base/syncagent-demo.XXXXXX")
pids=

finish() {
	code=$?
	trap - EXIT
	for pid in $pids; do kill "$pid" 2>/dev/null || :; done
	for pid in $pids; do wait "$pid" 2>/dev/null || :; done
	if [ "$code" -ne 0 ]; then
		echo "demo: FAILED; the last lines of the logs:" >&2
		tail -n 5 "$work"/*.log >&2 || :
	fi
	rm -rf "$work"
	exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Nothing from the caller's environment or home directory takes part.
for name in $(env | sed -n 's/^\(SYNCAGENT_[A-Z0-9_]*\)=.*/\1/p'); do unset "$name"; done
export HOME="$work" XDG_STATE_HOME="$work/state" XDG_CONFIG_HOME="$work/config" PATH="$bin:$PATH"
cd "$work"

fail() {
	echo "demo: $*" >&2
	exit 1
}

say() { printf '\n# %s\n' "$*"; }

# quoted gives the words of a command as one would type them.
quoted() {
	for word in "$@"; do
		case $word in
		*[!A-Za-z0-9_./:=,@-]* | '') printf " '%s'" "$word" ;;
		*) printf ' %s' "$word" ;;
		esac
	done
}

# run shows a command and runs it.
run() {
	echo "\$$(quoted "$@")"
	"$@"
}

# background shows a command, and runs it until the demo ends with its output in a log.
background() {
	log=$1.log
	shift
	echo "\$$(quoted "$@") &"
	"$@" >"$log" 2>&1 &
	pids="$pids $!"
}

# await waits until a command succeeds, as long as everything in the background runs.
await() {
	what=$1
	shift
	tries=0
	until "$@" >/dev/null 2>&1; do
		for pid in $pids; do
			kill -0 "$pid" 2>/dev/null || fail "a background command ended while waiting: $what"
		done
		tries=$((tries + 1))
		[ "$tries" -le 600 ] || fail "waited too long: $what"
		sleep 0.1
	done
}

status() { syncagent status -o json --config "$1/syncagent.yaml"; }
ready() { status "$1" | grep -q '"ready": *true'; }
digest() { status "$1" | sed -n 's/.*"view_digest": *"\([0-9a-f]*\)".*/\1/p'; }
connected() { [ "$(status "$1" | grep -o '"connected": *true' | wc -l)" -ge "$2" ]; }
holds() { [ "$(syncagent get --config "$1/syncagent.yaml" "$2")" = "$3" ]; }
equal() {
	d=$(digest web1)
	[ -n "$d" ] && [ "$(digest web2)" = "$d" ] && [ "$(digest web3)" = "$d" ]
}
same_files() { diff -r -x '.syncagent*' web1/files web2/files && diff -r -x '.syncagent*' web1/files web3/files; }

say 'The first host makes the network, the others join it with a token.'
echo '$ syncagent init --dir web1 --name web1 >token'
syncagent init --dir web1 --name web1 >token 2>init.log
background web1 syncagent agent --config web1/syncagent.yaml
await 'web1 is ready' ready web1
for host in web2 web3; do
	echo "\$ syncagent join \"\$(cat token)\" --dir $host --name $host"
	syncagent join "$(tail -n 1 token)" --dir $host --name $host 2>join.log | tee $host.line
	background $host syncagent agent --config $host/syncagent.yaml
done
for host in web2 web3; do
	await "$host is ready" ready $host
done

say 'An admin admits them: until then nobody tells them anything.'
for host in web2 web3; do
	run syncagent acl admit "$(tail -n 1 $host.line)" --config web1/syncagent.yaml
done
for host in web1 web2 web3; do
	await "$host is connected to the others" connected $host 2
done
run syncagent peers --config web3/syncagent.yaml

say 'Each host keeps /app on disk, and runs a command after its files changed.'
for host in web1 web2 web3; do
	mkdir $host/triggers
	cat >$host/triggers/reload <<END
{"path": "/app", "command": "echo \$SYNCAGENT_CHANGED changed >> $work/$host/reloads"}
END
	background $host-mirror syncagent mirror /app $host/files --triggers-dir $host/triggers --config $host/syncagent.yaml
done
echo '$ cat web1/triggers/reload'
cat web1/triggers/reload

say 'A directory tree goes in on one host, single values on another.'
mkdir -p tree/flags tree/certs
n=0
while [ $n -lt 200 ]; do
	echo "value $n" >tree/flags/flag$n
	n=$((n + 1))
done
head -c 3000 /dev/urandom >tree/certs/web.key
chmod 600 tree/certs/web.key
run syncagent import tree /app --config web1/syncagent.yaml
run syncagent put /app/greeting 'hello from web2' --config web2/syncagent.yaml
await 'the last value is on all hosts' holds web3 /app/greeting 'hello from web2'
await 'all hosts show the same' equal
run syncagent count /app --config web3/syncagent.yaml
run syncagent get /app/greeting --config web3/syncagent.yaml
echo

say 'The files are on every disk, byte for byte and with their modes, and the commands ran.'
for host in web1 web2 web3; do
	await "$host has all files" test -e $host/files/greeting
	await "$host has the tree" diff -r tree/flags $host/files/flags
	await "$host ran its trigger" test -s $host/reloads
done
await 'the mirrors are equal' same_files
run cmp tree/certs/web.key web3/files/certs/web.key
run ls -l web3/files/certs/web.key
run tail -n 1 web3/reloads

say 'web3 is cut off. Both sides write: different paths, and the same one.'
run syncagent peers pause --config web3/syncagent.yaml
await 'web3 is alone' sh -c '! syncagent status -o json --config web3/syncagent.yaml | grep -q "\"connected\": *true"'
n=0
while [ $n -lt 5 ]; do
	run syncagent put /app/colour "blue $n" --config web1/syncagent.yaml
	n=$((n + 1))
done
run syncagent put /app/one 'written on web1' --config web1/syncagent.yaml
run syncagent rm /app/flags/flag7 --config web1/syncagent.yaml
run syncagent put /app/colour red --config web3/syncagent.yaml
run syncagent put /app/three 'written on web3' --config web3/syncagent.yaml
run syncagent get /app/colour --config web2/syncagent.yaml
echo
run syncagent get /app/colour --config web3/syncagent.yaml
echo

say 'It comes back. The last write wins everywhere: web3 wrote red after web1 had written blue, in fewer blocks.'
run syncagent peers resume --config web3/syncagent.yaml
await 'all hosts show the same' equal
for host in web1 web2 web3; do
	await "$host shows the last write" holds $host /app/colour red
	await "$host has the file from web1" cmp web1/files/one $host/files/one
	await "$host has the file from web3" grep -q 'written on web3' $host/files/three
	await "$host removed the deleted file" test ! -e $host/files/flags/flag7
done
await 'the mirrors are equal' same_files
for host in web1 web2 web3; do
	run syncagent get /app/colour --config $host/syncagent.yaml
	echo
done
say 'The files, too, are the same: diff finds nothing.'
run diff -r -x '.syncagent*' web1/files web2/files
run diff -r -x '.syncagent*' web1/files web3/files
for host in web1 web2 web3; do
	echo "$host shows $(syncagent count --config $host/syncagent.yaml) paths, digest $(digest $host)"
done

say "All three are equal. The demo took $(($(date +%s) - started)) s."
