package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The commands of the README's tour and of the quick start are run here as they stand there, by bash. What a reader
// fills in is filled in: the token, the line that join printed, and directories of the test's own.

// tourStart comes before the commands. $T is where files go; a host is a directory of it.
const tourStart = `set -eu
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
cd "$T"
host() { export SYNCAGENT_CONFIG=$T/$1/syncagent.yaml SYNCAGENT_INIT_DIR=$T/$1 SYNCAGENT_JOIN_DIR=$T/$1; }
export SYNCAGENT_INIT_LISTEN=/ip4/127.0.0.1/tcp/0 SYNCAGENT_JOIN_LISTEN=/ip4/127.0.0.1/tcp/0
until_true() { until "$@" >/dev/null 2>&1; do sleep 0.05; done; }
echo secret >tls.key
`

func TestReadmeTour(t *testing.T) {
	script := tourStart
	for _, m := range regexp.MustCompile(`(?m)^\$ (.*)$`).FindAllStringSubmatch(block(t, "../../README.md", "console", 0), -1) {
		command, _, _ := strings.Cut(m[1], "  #")
		command = strings.ReplaceAll(command, "/tmp/", "$T/")
		switch {
		case strings.HasPrefix(command, "make build"):
			continue // this program stands in for it
		case strings.HasPrefix(command, "syncagent join"):
			command = "line=$(" + command + ")"
		case strings.Contains(command, "acl admit"):
			command = withLine(t, command)
		case strings.TrimSpace(command) == "sleep 1":
			command = "until_true syncagent status --config $T/web1/syncagent.yaml; until_true syncagent status --config $T/web2/syncagent.yaml"
		case strings.HasPrefix(command, "sleep 1; cat "):
			file := strings.TrimPrefix(command, "sleep 1; ")
			command = "until_true " + file + "\n" + file
		case strings.Contains(command, " ls "):
			command = "until_true syncagent get --config $T/web2/syncagent.yaml /certs/web/tls.key\n" + command
		}
		script += command + "\n"
	}
	if out := runTour(t, script); !strings.HasSuffix(out, "/certs/web/tls.key\nsecret\n") {
		t.Errorf("the tour ends with %q", out)
	}
}

func TestQuickStart(t *testing.T) {
	const file = "../../docs/quickstart.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	script := tourStart + `
mkdir -p conf/sub bin; echo 1 >conf/a; echo 2 >conf/sub/b
printf '#!/bin/sh\necho "$@" >>"$T/ran"\n' >bin/systemctl; chmod 755 bin/systemctl; PATH=$T/bin:$PATH
`
	for i := range strings.Count(string(text), "```sh\n") {
		commands := block(t, file, "sh", i)
		commands = strings.ReplaceAll(commands, "/etc/nginx/certs", "$T/certs")
		host := "web1"
		switch {
		case strings.Contains(commands, "syncagent init"):
			commands = "token=$(" + strings.TrimSpace(commands) + ")"
		case strings.Contains(commands, "syncagent join TOKEN"):
			host = "web2"
			commands = strings.Replace(commands, "syncagent join TOKEN --name web2", `line=$(syncagent join "$token" --name web2)`, 1)
			commands = strings.Replace(commands, "syncagent agent", "syncagent agent &", 1) + "until_true syncagent status\n"
		case strings.TrimSpace(commands) == "syncagent agent":
			commands = "syncagent agent &\nuntil_true syncagent status\n"
		case strings.Contains(commands, "acl admit"):
			commands = withLine(t, commands)
		case strings.Contains(commands, "syncagent mirror"):
			commands += "until_true test -s $T/ran\n"
			commands = strings.Replace(commands, "--triggers-dir triggers.d\n", "--triggers-dir triggers.d &\n", 1)
		case strings.Contains(commands, "acl apply"):
			commands = "syncagent acl show | grep -Ev '^(network|serial|signature) ' >policy.txt\n" + commands
		}
		script += "host " + host + "\n" + commands + "\n"
	}
	out := runTour(t, script+`cat $T/certs/tls.key $T/ran; host web2; until_true syncagent get /conf/sub/b; syncagent get /conf/sub/b`)
	if !strings.HasSuffix(out, "...reload nginx\n2\n") {
		t.Errorf("the quick start ends with %q", out)
	}
}

// block gives the nth code block of a language in a document.
func block(t *testing.T, file, language string, n int) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if n >= len(blocks) {
		t.Fatalf("%s has %d blocks of %s", file, len(blocks), language)
	}
	return blocks[n][1]
}

// withLine puts the line that join printed in place of the one of the document.
func withLine(t *testing.T, command string) string {
	t.Helper()
	filled := regexp.MustCompile(`'identity web2 12D3KooW[A-Za-z0-9]*\.\.\.'`).ReplaceAllLiteralString(command, `"$line"`)
	if filled == command {
		t.Fatalf("no line of join in %q", command)
	}
	return filled
}

// runTour runs a script in an empty directory and gives what it prints.
func runTour(t *testing.T, script string) string {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed: the commands of the documents were not run")
	}
	dir, err := os.MkdirTemp("", "tour") // short, for the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bash, "-c", script)
	cmd.Env = append(os.Environ(), "T="+dir, "XDG_STATE_HOME="+filepath.Join(dir, "state"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s\n%s", err, script, out, said.String())
	}
	return string(out)
}
