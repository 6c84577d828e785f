package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/acl"
	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// idJSON is what id prints for programs.
type idJSON struct {
	Name   string   `json:"name"`
	PeerID string   `json:"peer_id"`
	Addrs  []string `json:"addrs"`
}

func (c *cli) idCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "id",
		Short: "Print the identity of this agent and where it listens",
		Long:  "Print the identity of this agent and where it listens. When the agent does not run, the\naddresses are those of the configuration.",
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := c.identity(cmd)
			if err != nil {
				return err
			}
			if c.json() {
				printJSON(c.stdout, id)
				return nil
			}
			fmt.Fprintf(c.stdout, "%s %s\n", id.Name, id.PeerID)
			for _, a := range id.Addrs {
				fmt.Fprintf(c.stdout, "  %s\n", a)
			}
			return nil
		},
	}
	cmd.AddCommand(c.idNewCmd())
	return cmd
}

const idNewHelp = `Make a key for a client that signs what it writes: put, rm, batch and import take it with
--key. With a NAME, the last line on stdout is what ` + "`syncagent acl admit`" + ` takes; with
--group '' there, the key gets no rights but those that rules give its name.`

func (c *cli) idNewCmd() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "new [NAME]",
		Short: "Make a key for a client that signs what it writes",
		Long:  idNewHelp,
		Args:  args(1),
		RunE: func(_ *cobra.Command, words []string) error {
			name := ""
			if len(words) > 0 {
				if name = words[0]; acl.CheckAlias(name) != nil {
					return usagef("%v", acl.CheckAlias(name))
				}
			}
			if out == "" {
				out = cmp.Or(name, "client") + ".key"
			}
			key, err := agent.CreateKey(out)
			if errors.Is(err, fs.ErrExist) {
				return failf(exitError, "exists", "%s exists: a key is never replaced", out).withHint("name another file with --out")
			}
			if err != nil {
				return err
			}
			id := record.KeyOf(key)
			c.note("wrote %s; keep it secret", out)
			if c.json() {
				printJSON(c.stdout, map[string]string{"name": name, "peer_id": id.String(), "file": out})
				return nil
			}
			if name == "" {
				fmt.Fprintln(c.stdout, id)
			} else {
				fmt.Fprintln(c.stdout, acl.Identity{Alias: name, Key: id})
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write the private key to `FILE` (default: NAME.key, else client.key)")
	return cmd
}

// identity asks the agent, and reads the files when there is none.
func (c *cli) identity(cmd *cobra.Command) (idJSON, error) {
	client, err := c.dial()
	if err != nil {
		return idJSON{}, err
	}
	ctx, cancel := c.bounded(cmd.Context())
	defer cancel()
	r, err := client.Agent.ID(ctx, connect.NewRequest(&apiv1.IDRequest{}))
	if err == nil {
		return idJSON{Name: r.Msg.GetName(), PeerID: r.Msg.GetPeerId(), Addrs: append([]string{}, r.Msg.GetAddrs()...)}, nil
	}
	if agent.ErrorOf(err).Code != agent.CodeUnreachable {
		return idJSON{}, err
	}
	cfg, cerr := c.loadConfig(nil)
	if cerr != nil {
		return idJSON{}, errors.Join(err, cerr)
	}
	key, cerr := agent.LoadKey(cfg.IdentityFile())
	if cerr != nil {
		return idJSON{}, cerr
	}
	id := idJSON{Name: cfg.AgentName(), PeerID: record.KeyOf(key).String(), Addrs: []string{}}
	for _, a := range cfg.Listen {
		id.Addrs = append(id.Addrs, strings.TrimSuffix(a, "/")+"/p2p/"+id.PeerID)
	}
	return id, nil
}
