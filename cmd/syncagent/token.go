package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/acl"
	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

const defaultTokenLife = 30 * 24 * time.Hour

//nolint:gosec // a text about tokens, no token
const tokenHelp = `Print a join token for further hosts. It can be used as often as you like until it
expires, and is no secret: it tells which network it is, whom to trust with its policy,
and where its agents are. A host that joined has no rights before it is admitted.

It is signed with an admin key that the network was born with, by default admin.key
beside the configuration: the name of the network is made of these keys.`

func (c *cli) tokenCmd() *cobra.Command {
	var expires, keyFile string
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print a join token for further hosts",
		Long:  tokenHelp,
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			life, err := parsePositive("--expires", expires)
			if err != nil {
				return err
			}
			cfg, err := c.loadNetworkConfig()
			if err != nil {
				return err
			}
			return c.printToken(cmd.Context(), cfg, life, keyFile)
		},
	}
	cmd.Flags().StringVar(&expires, "expires", "30d", "the token is good for `D`")
	cmd.Flags().StringVar(&keyFile, "admin-key", "", "sign with the key in `FILE`")
	return cmd
}

// loadNetworkConfig reads the configuration of a host that is part of a network.
func (c *cli) loadNetworkConfig() (agent.Config, error) {
	cfg, err := c.loadConfig(nil)
	if err == nil && cfg.Network == "" {
		err = failf(exitUsage, string(agent.CodeBadConfig), "%s: this host belongs to no network yet", cfg.File).
			withHint("`syncagent init` makes a network, `syncagent join TOKEN` makes this host part of one")
	}
	return cfg, err
}

// adminKey reads the key that signs policies for the network.
func adminKey(cfg agent.Config, file string) (ed25519.PrivateKey, error) {
	key, file, err := readAdminKey(cfg, file)
	if err != nil {
		return nil, err
	}
	if me := record.KeyOf(key).String(); !slices.Contains(cfg.Admins, me) {
		return nil, usagef("admin key %s: %s is no admin of this network", file, me).
			withHint("the admins are those under admins in %s", cfg.File)
	}
	return key, nil
}

func readAdminKey(cfg agent.Config, given string) (key ed25519.PrivateKey, file string, err error) {
	if file = given; file == "" {
		file = cfg.AdminKeyFile()
	}
	key, err = agent.LoadKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = failf(exitError, string(agent.CodeNoKeyFile), "no admin key %s", file).
			withHint("run this on the host that has it, or name it with --admin-key")
	}
	return key, file, err
}

// printToken makes a token for the network that this host is part of.
func (c *cli) printToken(ctx context.Context, cfg agent.Config, life time.Duration, keyFile string) error {
	key, file, err := readAdminKey(cfg, keyFile)
	if err != nil {
		return err
	}
	known, err := loadToken(cfg)
	if err != nil {
		return err
	}
	if me := record.KeyOf(key); !slices.Contains(known.Genesis.Admins, me) {
		return usagef("admin key %s: the network was not born with %s", file, me).
			withHint("a token is signed with one of %s, whether or not it still signs policies", joinKeys(known.Genesis.Admins))
	}
	token, err := c.newToken(ctx, cfg, known.Genesis, key, life)
	if err != nil {
		return err
	}
	c.showToken(token)
	return nil
}

func loadToken(cfg agent.Config) (*acl.Token, error) {
	text, err := readFile("token file", cfg.TokenFile(), 64<<10)
	if err != nil {
		return nil, err
	}
	t, err := acl.ParseToken(string(text))
	if err != nil {
		return nil, failf(exitUsage, "bad_token", "read %s: %w", cfg.TokenFile(), err)
	}
	if t.Network.String() != cfg.Network {
		return nil, failf(exitError, "wrong_network", "%s is of network %s, the configuration of %s",
			cfg.TokenFile(), t.Network, cfg.Network)
	}
	return t, nil
}

// signedToken is a token with its text.
type signedToken struct {
	*acl.Token
	text string
}

func (c *cli) newToken(ctx context.Context, cfg agent.Config, g record.Genesis, key ed25519.PrivateKey, life time.Duration) (signedToken, error) {
	admins, err := parseKeys("admins", cfg.Admins)
	if err != nil {
		return signedToken{}, err
	}
	t := &acl.Token{
		Network: g.ID(), Genesis: g, Admins: admins, Bootstrap: bootstrapAddresses(cfg), Expires: time.Now().Add(life),
	}
	if p := c.policyInForce(ctx, cfg); p != nil {
		t.PolicySerial, t.PolicyHash = p.Serial, p.Hash
	}
	text, err := t.Sign(key)
	return signedToken{t, text}, err
}

func (c *cli) showToken(t signedToken) {
	if c.json() {
		printJSON(c.stdout, map[string]any{
			"token": t.text, "network": t.Network.String(), "expires": t.Expires.UTC().Format(time.RFC3339), "bootstrap": t.Bootstrap,
		})
		return
	}
	fmt.Fprintln(c.stdout, t.text)
}

// bootstrapAddresses are where a host that joins finds agents: this one first, then those that it knows itself.
func bootstrapAddresses(cfg agent.Config) []string {
	var addresses []string
	if key, err := agent.LoadKey(cfg.IdentityFile()); err == nil { // without one, it tells of the others only
		addresses = ownAddresses(cfg, record.KeyOf(key).String())
	}
	addresses = append(addresses, cfg.Bootstrap...)
	return addresses[:min(len(addresses), acl.MaxBootstrap)]
}

// ownAddresses are those that the user wants announced, else those of the host.
func ownAddresses(cfg agent.Config, peerID string) (addresses []string) {
	if len(cfg.Announce) == 0 {
		host, _ := net.InterfaceAddrs() // none: the addresses that listen names remain
		return dialable(cfg.Listen, peerID, host)
	}
	for _, a := range cfg.Announce {
		addresses = append(addresses, withPeer(a, peerID))
	}
	return addresses
}

// withPeer adds the peer ID to an address that has none.
func withPeer(address, peerID string) string {
	if strings.Contains(address, "/p2p/") {
		return address
	}
	return address + "/p2p/" + peerID
}

// policyInForce asks the agent, and reads policy.txt when there is none. Nil: neither has one.
func (c *cli) policyInForce(ctx context.Context, cfg agent.Config) *acl.Signed {
	text, err := askPolicy(ctx, cfg)
	if err != nil {
		if text, err = readFile("policy", cfg.PolicyFile(), maxPolicyFile); err != nil {
			return nil
		}
	}
	p, err := acl.ParseSigned(text)
	if err != nil {
		return nil
	}
	return p
}

func askPolicy(ctx context.Context, cfg agent.Config) ([]byte, error) {
	client, err := agent.Dial(cfg.API.Socket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := client.Policy.Show(ctx, connect.NewRequest(&apiv1.ShowRequest{}))
	if err != nil {
		return nil, err
	}
	return r.Msg.GetSigned(), nil
}

func joinKeys(keys []record.PublicKey) string {
	var texts []string
	for _, k := range keys {
		texts = append(texts, k.String())
	}
	return strings.Join(texts, ", ")
}
