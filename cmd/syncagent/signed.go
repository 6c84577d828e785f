package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"

	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// addKeyFlag lets a command that writes sign with a key of the user's.
func (c *cli) addKeyFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.signKey, "key", "", "sign with the key in `FILE` instead of having the agent sign: its rights count")
}

// writeSigned makes ops one atomic write that the user's key signs.
func (c *cli) writeSigned(ctx context.Context, client *agent.Client, ops []*apiv1.Op) (*apiv1.WriteResponse, error) {
	key, err := loadSignKey(c.signKey)
	if err != nil {
		return nil, err
	}
	network, err := c.networkOfConfig()
	if err != nil {
		return nil, err
	}
	return client.WriteSigned(ctx, key, network, ops)
}

func loadSignKey(file string) (ed25519.PrivateKey, error) {
	key, err := agent.LoadKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failf(exitError, string(agent.CodeNoKeyFile), "no key file %s", file).
			withHint("`syncagent id new --out %s` makes a key", file)
	}
	return key, err
}

// networkOfConfig gives the network of this host. Without a configuration it is zero: the agent's word counts.
func (c *cli) networkOfConfig() (record.NetworkID, error) {
	cfg, err := c.loadConfig(nil)
	if errors.Is(err, fs.ErrNotExist) && c.configFile == "" || err == nil && cfg.Network == "" {
		return record.NetworkID{}, nil
	}
	if err != nil {
		return record.NetworkID{}, err
	}
	return record.ParseNetworkID(cfg.Network)
}
