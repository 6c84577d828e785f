package main

import (
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

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
	return &cobra.Command{
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
