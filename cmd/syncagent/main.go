// Command syncagent runs an agent and talks to one.
//
// One file holds one command: flags become calls, errors become messages and exit codes. The commands that work on
// entries reach the agent over its socket; init, join, config and acl check need no agent.
//
// Names, exit codes and JSON keys are a contract: scripts of others are written against them.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and gives its exit code. The first SIGINT or SIGTERM ends ctx of the command, the
// second kills the process.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	c := &cli{stdin: &input{ctx, stdin}, stdout: &output{w: stdout}, stderr: stderr}
	root := c.rootCmd()
	root.SetArgs(args)
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if c.stdout.err != nil {
		err = fmt.Errorf("print result: %w", c.stdout.err)
	}
	if err == nil {
		return exitOK
	}
	f := classify(ctx, err)
	if f.code == "usage" && f.hint == "" {
		f = f.withHint("`%s --help` tells how it is used", cmd.CommandPath())
	}
	if file := c.configFile; file != "" && c.socket == "" && c.server.Address == "" {
		f.hint = strings.Replace(f.hint, "syncagent agent (systemctl start syncagent)", "syncagent agent --config "+file, 1)
	}
	f.print(stderr, c.wantsJSON(args))
	return f.exit
}
