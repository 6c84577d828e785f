package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"syncagent/acl"
	"syncagent/agent"
	"syncagent/crdtstore/record"
)

const joinHelp = `Make this host part of the network that TOKEN (from syncagent init or syncagent token)
names: an identity and a configuration. The last line on stdout is the policy line that
admits it: give it to ` + "`syncagent acl admit`" + ` on the host that has the admin key.

A second join with a token of the same network changes nothing and prints the line
again; with --peer it takes over these addresses.`

func (c *cli) joinCmd() *cobra.Command {
	var f setupFlags
	var peers []string
	cmd := &cobra.Command{
		Use:   "join TOKEN",
		Short: "Make this host part of a network",
		Long:  joinHelp,
		Args:  args(1, "TOKEN"),
		RunE: func(_ *cobra.Command, words []string) error {
			t, err := acl.ParseToken(words[0])
			if err != nil {
				return failf(exitUsage, "bad_token", "%w", err).withHint("copy it again, as one line; `syncagent token` prints a fresh one")
			}
			return c.join(t, strings.TrimSpace(words[0]), f, peers)
		},
	}
	f.add(cmd)
	cmd.Flags().StringSliceVar(&peers, "peer", nil, "`ADDR` of an agent to dial first, host:port or a multiaddress")
	return cmd
}

func (c *cli) join(t *acl.Token, text string, f setupFlags, peers []string) error {
	l, err := c.newLayout(f.dir)
	if err != nil {
		return err
	}
	cfg, err := agent.LoadConfig(l.file, nil)
	switch {
	case err == nil && cfg.Network == t.Network.String():
		return c.joinedAlready(cfg, peers)
	case err == nil && cfg.Network != "":
		return failf(exitError, "wrong_network", "this host is part of another network: %s, the token is of %s", cfg.Network, t.Network).
			withHint("give the new network its own folder with --dir, or remove %s and the data first", cfg.File)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case t.Expired(time.Now()):
		return failf(exitUsage, "bad_token", "the token expired at %s", t.Expires.UTC().Format(time.RFC3339)).
			withHint("`syncagent token` on the host with the admin key prints a fresh one")
	}
	old := cfg
	if cfg, err = c.newConfig(l, old, f); err != nil {
		return err
	}
	cfg.Network = t.Network.String()
	for _, k := range t.Admins {
		cfg.Admins = append(cfg.Admins, k.String())
	}
	cfg.Bootstrap = mergePeers(t.Bootstrap, peers)
	if faults := cfg.Check(); len(faults) > 0 {
		return usagef("%s", faults[0])
	}
	if err := l.makeDirs(cfg.DataDir); err != nil {
		return err
	}
	key, err := loadOrCreateKey(cfg.IdentityFile())
	if err != nil {
		return err
	}
	if err := writeFile(cfg.TokenFile(), []byte(text+"\n"), 0o644); err != nil {
		return err
	}
	if err := saveConfig(old, cfg); err != nil {
		return err
	}
	c.note("wrote %s, and beside it identity.key", l.file)
	c.note("next: run `syncagent agent%s`; to admit this host, run on the one with the admin key: syncagent acl admit '%s'",
		l.flag(), identityLine(cfg.Name, record.KeyOf(key)))
	c.showIdentity(cfg.Name, record.KeyOf(key))
	return nil
}

// joinedAlready changes nothing but, if the user named some, the addresses to dial first. A lost identity key becomes
// a new identity, which has to be admitted anew.
func (c *cli) joinedAlready(cfg agent.Config, peers []string) error {
	key, err := loadOrCreateKey(cfg.IdentityFile())
	if err != nil {
		return err
	}
	bootstrap := mergePeers(cfg.Bootstrap, peers)
	if !slices.Equal(bootstrap, cfg.Bootstrap) {
		cfg.Bootstrap = bootstrap
		if err := rewriteConfig(cfg, "bootstrap"); err != nil {
			return err
		}
		c.note("bootstrap of %s is changed; a running agent takes it over at SIGHUP", cfg.File)
	} else {
		c.note("%s is part of network %s already: nothing changed", cfg.AgentName(), cfg.Network)
	}
	c.showIdentity(cfg.AgentName(), record.KeyOf(key))
	return nil
}

func identityLine(name string, key record.PublicKey) string {
	return acl.Identity{Alias: name, Key: key}.String()
}

func (c *cli) showIdentity(name string, key record.PublicKey) {
	if c.json() {
		printJSON(c.stdout, map[string]string{"name": name, "peer_id": key.String(), "line": identityLine(name, key)})
		return
	}
	fmt.Fprintln(c.stdout, identityLine(name, key))
}

// mergePeers puts added addresses first. One with a peer ID replaces the addresses that the peer had.
func mergePeers(known, added []string) []string {
	out := slices.Clone(added)
	for _, k := range known {
		_, id, named := strings.Cut(k, "/p2p/")
		replaced := named && slices.ContainsFunc(added, func(a string) bool { return strings.HasSuffix(a, "/p2p/"+id) })
		if !replaced && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}
