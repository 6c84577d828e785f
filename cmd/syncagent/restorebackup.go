package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/spf13/cobra"

	"syncagent/acl"
	"syncagent/agent"
	"syncagent/crdtstore/record"
)

const restoreBackupHelp = `Make the store of this host's agent of a backup; "-" is standard input. The agent must
not run, and its data directory must be empty. Every signature and hash is checked, and
what this host's identity may not read is left out.

The host needs an identity and a configuration of the backup's network first: its own of
before, or new ones by ` + "`syncagent join`" + ` with the token that --dry-run prints (a fresh one
if --admin-key is given). An identity that the backup's policy does not name is admitted
with the admin key.

Do this when all hosts are lost. As long as one lives, join and admit the new host
instead: it gets everything, and later writes too. To go back to older values on a
network that runs, see ` + "`syncagent export --backup`" + `.`

type restoreFlags struct {
	identity, adminKey, group string
	dryRun                    bool
}

func (c *cli) restoreBackupCmd() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore-backup FILE|-",
		Short: "Make the store of an agent that does not run of a backup",
		Long:  restoreBackupHelp,
		Args:  args(1, "FILE|-"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.restoreBackup(cmd.Context(), words[0], f)
		},
	}
	cmd.Flags().StringVar(&f.identity, "identity", "", "decrypt with the age identity in `FILE`")
	cmd.Flags().StringVar(&f.adminKey, "admin-key", "", "admit this host, or sign a fresh token, with the key in `FILE`")
	cmd.Flags().StringVar(&f.group, "group", defaultGroup, "`@NAME` of the group to admit it into")
	cmd.Flags().BoolVarP(&f.dryRun, "dry-run", "n", false, "only check the backup and tell what it holds")
	return cmd
}

func (c *cli) restoreBackup(ctx context.Context, name string, f restoreFlags) error {
	ctx, cancel := c.streaming(ctx)
	defer cancel()
	b, err := c.openBackup(name, f.identity)
	if err != nil {
		return err
	}
	defer b.Close()
	total := int(b.Head.Blocks)
	shows := c.newProgress("blocks", func() int { return total })
	b.OnProgress(func(blocks int64) { shows.at(int(blocks), total) })
	if f.dryRun {
		return c.checkBackup(ctx, b, f.adminKey, shows)
	}
	return c.fillFrom(ctx, b, f, shows)
}

// openBackup opens the file, which the process keeps open until it ends.
func (c *cli) openBackup(name, identityFile string) (*agent.Backup, error) {
	file := io.Reader(c.stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fileFailure("backup", name, err)
		}
		file = f
	}
	plainText, err := decrypted(file, identityFile)
	if err != nil {
		return nil, err
	}
	b, err := agent.OpenBackup(plainText)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// decrypted takes the encryption away, if there is any.
func decrypted(file io.Reader, identityFile string) (io.Reader, error) {
	const binary = "age-encryption.org/"
	r := bufio.NewReaderSize(file, 64<<10)
	begins, _ := r.Peek(len(armor.Header)) // a short file is no backup, whatever it is
	armored := string(begins) == armor.Header
	if !armored && !strings.HasPrefix(string(begins), binary) {
		return r, nil
	}
	if identityFile == "" {
		return nil, usagef("the backup is encrypted").withHint("name the age identity that can read it: --identity FILE")
	}
	text, err := readFile("age identity", identityFile, 1<<20)
	if err != nil {
		return nil, err
	}
	identities, err := age.ParseIdentities(strings.NewReader(string(text)))
	if err != nil {
		// The library's error could repeat the line, which is a secret.
		return nil, usagef("%s holds no age identity", identityFile).withHint("it is a file that age-keygen wrote, with a line that begins with AGE-SECRET-KEY-")
	}
	var from io.Reader = r
	if armored {
		from = armor.NewReader(r)
	}
	out, err := age.Decrypt(from, identities...)
	if noMatch := new(age.NoIdentityMatchError); errors.As(err, &noMatch) {
		return nil, usagef("the identity in %s cannot read this backup", identityFile).withHint("take one whose recipient was named when it was made")
	}
	if err != nil {
		return nil, failf(exitUsage, string(agent.CodeBadBackup), "decrypt backup: %w", err)
	}
	return out, nil
}

// checkBackup verifies a backup and tells what it is.
func (c *cli) checkBackup(ctx context.Context, b *agent.Backup, adminKeyFile string, shows *progress) error {
	blocks, entries, err := b.Check(ctx)
	shows.clear()
	if err != nil {
		return err
	}
	h := b.Head
	if adminKeyFile != "" {
		if h.Token, err = freshToken(h.Token, adminKeyFile); err != nil {
			return err
		}
	}
	if c.json() {
		printJSON(c.stdout, map[string]any{
			"ok": true, "network": h.Network, "peer_id": h.PeerID, "name": h.Name, "time": h.Time.Format(time.RFC3339), "blocks": blocks,
			"entries": h.Entries, "missing_entries": h.Missing, "view_digest": h.ViewDigest, "token": h.Token,
		})
		return nil
	}
	table(c.stdout, nil, [][]string{
		{"made", h.Time.Format(time.RFC3339) + " by " + h.Name + " " + h.PeerID},
		{"network", h.Network},
		{"holds", fmt.Sprintf("%d entries; %d with their history, in %d blocks", h.Entries, entries, blocks)},
		{"lacks", fmt.Sprintf("%d entries that the agent lacked itself", h.Missing)},
		{"view digest", h.ViewDigest},
		{"token", h.Token},
	})
	return nil
}

// freshToken signs a token anew: the one in a backup may have expired.
func freshToken(text, adminKeyFile string) (string, error) {
	t, err := acl.ParseToken(text)
	if err != nil {
		return "", failf(exitUsage, "bad_token", "token in the backup: %w", err)
	}
	key, err := agent.LoadKey(adminKeyFile)
	if err != nil {
		return "", err
	}
	t.Expires = time.Now().Add(defaultTokenLife)
	fresh, err := t.Sign(key)
	if err != nil {
		return "", usagef("admin key %s: %v", adminKeyFile, err)
	}
	return fresh, nil
}

// fillFrom restores into the data directory of the configuration.
func (c *cli) fillFrom(ctx context.Context, b *agent.Backup, f restoreFlags, shows *progress) error {
	cfg, err := c.loadNetworkConfig()
	if err != nil {
		return err
	}
	if cfg.Network != b.Head.Network {
		return failf(exitError, string(agent.CodeWrongNetwork), "the backup is of network %s, %s of %s", b.Head.Network, cfg.File, cfg.Network).
			withHint("set up a folder for that network: syncagent join TOKEN --dir DIR, with the token that --dry-run prints")
	}
	key, err := agent.LoadKey(cfg.IdentityFile())
	if err != nil {
		return err
	}
	admission, err := c.admission(cfg, b, record.KeyOf(key), f)
	if err != nil {
		return err
	}
	var policies [][]byte
	if admission != nil {
		policies = append(policies, admission)
	}
	got, err := b.Restore(ctx, cfg, policies...)
	shows.clear()
	if err != nil {
		return err
	}
	if admission != nil {
		if err := writeFile(cfg.PolicyFile(), admission, 0o644); err != nil {
			c.note("the policy is in the store, but its copy could not be kept: %v", err)
		}
	}
	if left := b.Head.Entries - got.Stats.Entries; left > 0 {
		c.note("%d of the backup's %d entries are not shown: this identity may not read them, or they have expired", left, b.Head.Entries)
	}
	if b.Head.PeerID == record.KeyOf(key).String() {
		c.note("warning: the backup was made with this identity; make sure that its old agent is gone for good: one identity must not run twice")
	}
	if c.json() {
		printJSON(c.stdout, map[string]any{"blocks": got.Blocks, "entries": got.Stats.Entries, "view_digest": fmt.Sprintf("%x", got.Stats.ViewDigest)})
		return nil
	}
	c.note("%d entries restored; next: syncagent agent --config %s", got.Stats.Entries, cfg.File)
	return nil
}

// admission gives a signed policy that admits this host, nil if it needs none.
func (c *cli) admission(cfg agent.Config, b *agent.Backup, self record.PublicKey, f restoreFlags) ([]byte, error) {
	now, err := b.Policy(cfg)
	if err != nil {
		return nil, err
	}
	if now == nil {
		return nil, failf(exitUsage, string(agent.CodeBadPolicy), "no policy in the backup is signed by an admin that %s pins", cfg.File).
			withHint("admins there must be those of the network")
	}
	network, err := record.ParseNetworkID(cfg.Network)
	if err != nil {
		return nil, err
	}
	if acl.Compile(network, now, []*acl.Signed{now}).Member(self) {
		return nil, nil
	}
	name := cfg.AgentName()
	admin, err := adminKey(cfg, f.adminKey)
	if f.adminKey == "" && isNoKey(err) {
		return nil, failf(exitDenied, string(agent.CodeDenied), "the backup's policy does not admit this host, %s: it would get nothing", identityLine(name, self)).
			withHint("name the admin key that admits it, --admin-key FILE, or put back the identity.key of an admitted host")
	}
	if err != nil {
		return nil, err
	}
	return c.signAdmission(cfg, now, network, admin, identityLine(name, self), f.group)
}

func isNoKey(err error) bool {
	f, ok := errors.AsType[*failure](err)
	return ok && f.code == string(agent.CodeNoKeyFile) || errors.Is(err, fs.ErrNotExist)
}

// signAdmission adds the line to a text. Its serial is above that of the join token too, which is the oldest that this
// host takes.
func (c *cli) signAdmission(cfg agent.Config, now *acl.Signed, network record.NetworkID, admin ed25519.PrivateKey, line, into string) ([]byte, error) {
	text, err := c.admitText(now, line, into, into != defaultGroup)
	if err != nil {
		return nil, err
	}
	if text == nil {
		return nil, failf(exitDenied, string(agent.CodeDenied), "the backup's policy names this host, but does not let it replicate").
			withHint("--group @NAME puts it into a group that has the peer operation")
	}
	serial := now.Serial
	if t, err := loadToken(cfg); err == nil {
		serial = max(serial, t.PolicySerial)
	}
	return acl.Sign(acl.SetHeader(text, network, serial+1), network, admin), nil
}
