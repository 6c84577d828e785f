package main

import (
	"fmt"

	"github.com/spf13/cobra"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

const putHelp = `Write one path. When put returns, the write is durable on this agent; it reaches the
others by itself.

VALUE is taken as it is. "-" reads standard input and "@FILE" a file, byte for byte:
use them for secrets, which other users of the host can see in the arguments of a
process. The limit is what limits.value of the agent says, 64 MiB by default.

--if-version and --if-absent are judged by what this agent shows at that moment. They
keep programs of one host from overwriting each other; two hosts that write at the same
time can both succeed, and the later write wins.`

func (c *cli) putCmd() *cobra.Command {
	var mode, ttl, ifVersion string
	var wait waitFlags
	var ifAbsent bool
	cmd := &cobra.Command{
		Use:               "put PATH VALUE|-|@FILE",
		Short:             "Write one path",
		Long:              putHelp,
		Example:           "  syncagent put /certs/web/tls.key @tls.key --mode 0600\n  date | syncagent put /hosts/web1/seen - --ttl 1h",
		Args:              args(2, "PATH", "VALUE"),
		ValidArgsFunction: c.completePaths(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			r := &apiv1.PutRequest{Path: words[0], IfVersion: ifVersion, IfAbsent: ifAbsent}
			if err := record.CheckPath(r.Path); err != nil {
				return err
			}
			var err error
			if r.Mode, err = parseMode(mode); err != nil {
				return err
			}
			if err := setTTL(r, ttl); err != nil {
				return err
			}
			waiter, err := wait.parse(c)
			if err != nil {
				return err
			}
			v, done, err := c.valueOf(words[1])
			if err != nil {
				return err
			}
			defer done()
			client, err := c.dial()
			if err != nil {
				return err
			}
			if err := waiter.check(cmd.Context(), client); err != nil {
				return err
			}
			w, err := c.send(cmd.Context(), client, r, v)
			if err != nil {
				return err
			}
			c.printWrite(w, fmt.Sprintf("%s: %d bytes", r.Path, v.size))
			return waiter.await(cmd.Context(), client, write{w.GetVersion(), []string{r.Path}})
		},
	}
	f := cmd.Flags()
	f.StringVar(&mode, "mode", "", "permission bits `0600` of files made of it (default: the mirror's)")
	f.StringVar(&ttl, "ttl", "", "let it expire after `D` such as 90s, 12h, 30d")
	f.StringVar(&ifVersion, "if-version", "", "write only if this agent shows version `V`")
	f.BoolVar(&ifAbsent, "if-absent", false, "write only if this agent shows nothing there")
	c.addKeyFlag(cmd)
	wait.add(cmd)
	exclusive(cmd, "if-version", "if-absent")
	return cmd
}
