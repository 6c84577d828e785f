package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"syncagent/agent"
)

const agentHelp = `Run the agent of this host in the foreground until SIGTERM or SIGINT.

Under systemd use Type=notify: it is told when the agent is ready, and by WatchdogSec
that it is alive. --ready-fd N writes a line to file descriptor N when it is ready, for
other supervisors. SIGHUP reads the configuration again, as syncagent reload does.`

func (c *cli) agentCmd() *cobra.Command {
	readyFD := -1
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent",
		Long:  agentHelp,
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.runAgent(cmd.Context(), readyFD)
		},
	}
	cmd.Flags().IntVar(&readyFD, "ready-fd", -1, "write a line to file descriptor `N` when ready")
	return cmd
}

func (c *cli) runAgent(ctx context.Context, readyFD int) error {
	load := func() (agent.Config, error) { return c.loadConfig(c.overrides()) }
	cfg, err := load()
	if err != nil {
		return err
	}
	log, levels, err := agent.NewLogger(c.stderr, cfg.Log)
	if err != nil {
		return err
	}
	ready, err := readyFile(readyFD)
	if err != nil {
		return err
	}
	a, err := agent.New(cfg, agent.Options{
		Version: readBuildInfo().Version, Log: log, Levels: levels,
		OnReady: func() { tellReady(ready) }, Load: load,
	})
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				a.ReloadFile()
			}
		}
	}()
	return a.Run(ctx)
}

// overrides are the settings that flags change.
func (c *cli) overrides() map[string]string {
	o := map[string]string{}
	if c.verbose {
		o["log.level"] = "debug"
	}
	if c.socket != "" {
		o["api.socket"] = c.socket
	}
	return o
}

// readyFile checks the descriptor of --ready-fd before the agent starts. Nil: none was named.
func readyFile(fd int) (*os.File, error) {
	if fd < 0 {
		return nil, nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return nil, usagef("--ready-fd %d: %v", fd, err)
	}
	unix.CloseOnExec(fd) // commands of triggers must not hold it open
	return os.NewFile(uintptr(fd), "ready-fd"), nil
}

// tellReady writes the line and closes the descriptor. Whoever wanted to know may be gone: that is no reason to stop.
func tellReady(f *os.File) {
	if f == nil {
		return
	}
	_, _ = fmt.Fprintln(f, "ready")
	if f.Fd() > 2 {
		_ = f.Close()
	}
}
