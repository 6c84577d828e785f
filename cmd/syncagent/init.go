package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io/fs"
	"slices"

	"github.com/spf13/cobra"

	"syncagent/acl"
	"syncagent/agent"
	"syncagent/crdtstore/record"
)

const initHelp = `Make a new network with this host as its first member: an identity, an admin key, a
first policy and a configuration. The last line on stdout is a join token for the other
hosts; it is no secret, it only tells whom to trust and where they are.

The first policy lets every admitted host read and write everything; policy.txt says
how to narrow it. Whoever has admin.key decides about the policy: keep a copy in a safe
place.

A second init changes nothing and prints a token again.`

// setupFlags are what init and join are told about this host.
type setupFlags struct {
	dir, name string
	listen    []string
}

func (f *setupFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.dir, "dir", "", "put everything into `DIR` and pick free ports (default: the system's or the user's folders)")
	fl.StringVar(&f.name, "name", "", "`NAME` of this host in the policy (default: the host name)")
	fl.StringSliceVar(&f.listen, "listen", nil, "`MULTIADDR` to listen on for other agents; port 0 picks a free one")
}

func (c *cli) initCmd() *cobra.Command {
	var f setupFlags
	var admins []string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a new network with this host as its first member",
		Long:  initHelp,
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.initNetwork(cmd.Context(), f, admins)
		},
	}
	f.add(cmd)
	cmd.Flags().StringSliceVar(&admins, "admin", nil, "`PUBKEY` (12D3KooW...) of a further admin")
	return cmd
}

func (c *cli) initNetwork(ctx context.Context, f setupFlags, admins []string) error {
	l, err := c.newLayout(f.dir)
	if err != nil {
		return err
	}
	cfg, err := agent.LoadConfig(l.file, nil)
	switch {
	case err == nil && cfg.Network != "":
		c.note("%s is part of network %s already: nothing changed", cfg.AgentName(), cfg.Network)
		return c.printToken(ctx, cfg, defaultTokenLife, "")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	old := cfg
	cfg, err = c.newConfig(l, old, f)
	if err != nil {
		return err
	}
	pinned, err := parseKeys("--admin", admins)
	if err != nil {
		return err
	}
	if err := l.makeDirs(cfg.DataDir); err != nil {
		return err
	}
	admin, err := loadOrCreateKey(cfg.AdminKeyFile())
	if err != nil {
		return err
	}
	identity, err := loadOrCreateKey(cfg.IdentityFile())
	if err != nil {
		return err
	}
	genesis := newGenesis(admin, pinned)
	token, err := c.writeNetwork(ctx, &cfg, genesis, admin, identity)
	if err != nil {
		return err
	}
	if err := saveConfig(old, cfg); err != nil { // last: without it, the next init starts anew
		return err
	}
	c.note("this host is %s %s, the first of network %s", cfg.Name, record.KeyOf(identity), cfg.Network)
	c.note("wrote %s, and beside it identity.key, admin.key, policy.txt", l.file)
	c.note("next: run `syncagent agent%s`, and `syncagent join TOKEN` on every other host, with this token:", l.flag())
	c.showToken(token)
	return nil
}

// writeNetwork writes what makes this host the first of a network beside the configuration, and gives a token for the
// others.
func (c *cli) writeNetwork(ctx context.Context, cfg *agent.Config, g record.Genesis, admin, identity ed25519.PrivateKey) (signedToken, error) {
	network := g.ID()
	cfg.Network = network.String()
	for _, k := range g.Admins {
		cfg.Admins = append(cfg.Admins, k.String())
	}
	text := acl.InitialPolicy(network, cfg.Name, record.KeyOf(identity))
	if err := writeFile(cfg.PolicyFile(), acl.Sign(text, network, admin), 0o644); err != nil {
		return signedToken{}, err
	}
	token, err := c.newToken(ctx, *cfg, g, admin, defaultTokenLife)
	if err != nil {
		return token, err
	}
	return token, writeFile(cfg.TokenFile(), []byte(token.text+"\n"), 0o644)
}

// newGenesis makes what a network's name is derived from.
func newGenesis(admin ed25519.PrivateKey, pinned []record.PublicKey) record.Genesis {
	g := record.Genesis{Admins: append(pinned, record.KeyOf(admin))}
	_, _ = rand.Read(g.Nonce[:]) // it cannot fail since Go 1.24
	slices.SortFunc(g.Admins, record.CompareKeys)
	g.Admins = slices.Compact(g.Admins)
	return g
}

// newConfig gives the settings of a host that is part of no network: those of old, with what the flags say, or if there
// is no old configuration new ones.
func (c *cli) newConfig(l layout, old agent.Config, f setupFlags) (agent.Config, error) {
	cfg := old
	if old.File == "" {
		cfg = agent.DefaultConfig()
		cfg.File, cfg.DataDir, cfg.API.Socket = l.file, l.dataDir, l.socket
	} else if len(f.listen) == 0 {
		f.listen = old.Listen
	}
	if f.name != "" || cfg.Name == "" {
		cfg.Name = cmp.Or(f.name, cfg.AgentName())
	}
	if err := acl.CheckAlias(cfg.Name); err != nil {
		return cfg, usagef("name of this host: %v", err).withHint("choose one with --name")
	}
	var err error
	if cfg.Listen, err = listenAddresses(f.listen, l.private); err != nil {
		return cfg, err
	}
	if old.File == "" {
		if cfg.API.HTTP, err = httpAddress(l.private, cfg.Listen); err != nil {
			return cfg, err
		}
	}
	if faults := cfg.Check(); len(faults) > 0 {
		return cfg, usagef("%s", faults[0])
	}
	return cfg, nil
}

func parseKeys(what string, texts []string) (keys []record.PublicKey, err error) {
	for _, t := range texts {
		k, err := record.ParsePublicKey(t)
		if err != nil {
			return nil, usagef("%s: %v", what, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}
