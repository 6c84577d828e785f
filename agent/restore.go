package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"

	"syncagent/acl"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// Backup is a backup that is being read. It can be read once: by Check or by Restore.
type Backup struct {
	Head   crdtstore.BackupHead
	reader *crdtstore.BackupReader
	zstd   *zstd.Decoder
}

// OpenBackup reads the beginning of what the API's Backup gave.
func OpenBackup(r io.Reader) (*Backup, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return nil, err
	}
	b, err := crdtstore.ReadBackup(z)
	if errors.Is(err, zstd.ErrMagicMismatch) {
		err = fmt.Errorf("%w: it does not begin as one", crdtstore.ErrBackup)
	}
	if err != nil {
		z.Close()
		return nil, restoreError(err, "")
	}
	return &Backup{Head: b.Head, reader: b, zstd: z}, nil
}

// OnProgress has fn told how many blocks were read, while Check or Restore run.
func (b *Backup) OnProgress(fn func(blocks int64)) { b.reader.Progress = fn }

// Close frees what the backup needs for reading.
func (b *Backup) Close() { b.zstd.Close() }

// Policy gives the text in force among those of the backup that an admin of c signed; nil if there is none.
func (b *Backup) Policy(c Config) (*acl.Signed, error) {
	network, admins, err := c.pins()
	if err != nil {
		return nil, err
	}
	var texts []*acl.Signed
	for _, text := range b.reader.Policies {
		p, err := acl.ParseSigned(text)
		if err != nil {
			continue
		}
		if _, ok := p.SignedBy(network, admins); ok {
			texts = append(texts, p)
		}
	}
	return acl.Effective(texts), nil
}

// Check reads the backup to its end and verifies every signature and hash.
func (b *Backup) Check(ctx context.Context) (blocks, entries int64, err error) {
	blocks, entries, err = b.reader.Check(ctx)
	return blocks, entries, restoreError(err, "")
}

// Restore makes the store of the agent that c configures, which must not run and have no data. Further signed policies
// come on top of those of the backup.
func (b *Backup) Restore(ctx context.Context, c Config, policies ...[]byte) (crdtstore.Restored, error) {
	o, err := restoreOptions(c)
	if err != nil {
		return crdtstore.Restored{}, err
	}
	if o.MinSerial, o.MinHash, err = policyFloor(&c); err != nil {
		return crdtstore.Restored{}, err
	}
	got, err := crdtstore.Restore(ctx, o, b.reader, policies...)
	return got, restoreError(err, c.DataDir)
}

func restoreOptions(c Config) (crdtstore.Options, error) {
	network, admins, err := c.pins()
	if err != nil {
		return crdtstore.Options{}, err
	}
	key, err := LoadKey(c.IdentityFile())
	return crdtstore.Options{
		Dir: c.DataDir, Network: network, Key: key, Admins: admins,
		History: time.Duration(c.Store.History), MinFree: uint64(c.Store.MinFree),
	}, err
}

// List calls fn for every entry at and below prefix as the agent that c configures would have shown it when the backup
// was made, with its value to read before fn returns. It needs room for a store in the directory for temporary files.
func (b *Backup) List(ctx context.Context, c Config, prefix string, fn func(*apiv1.Entry, io.Reader) error) error {
	dir, err := os.MkdirTemp("", "syncagent-backup-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	o, err := restoreOptions(c)
	if err != nil {
		return err
	}
	o.Dir = dir
	if _, err := crdtstore.Restore(ctx, o, b.reader); err != nil {
		return restoreError(err, dir)
	}
	s, err := crdtstore.Open(o)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // only read
	n, err := s.Snapshot()
	if err != nil {
		return err
	}
	defer n.Close()
	l := labels{policy: s.Policy()}
	return n.List(prefix, true, func(i crdtstore.Item) error {
		if record.Reserved(i.Path) {
			return nil
		}
		content := s.Content(&i)
		defer content.Close() //nolint:errcheck // only read
		return fn(l.entry(&i), content)
	})
}

// restoreError gives what failed a code and a hint.
func restoreError(err error, dataDir string) error {
	if err == nil {
		return nil
	}
	e := &Error{Code: CodeInternal, Message: err.Error(), Err: err}
	switch {
	case errors.Is(err, crdtstore.ErrBackup):
		e.Code, e.Hint = CodeBadBackup, "take another copy of it, or an older backup; nothing was changed"
	case errors.Is(err, crdtstore.ErrNotEmpty):
		e.Code, e.Hint = CodeInUse, "a backup becomes a new store: stop the agent and move "+dataDir+" away first"
	case errors.Is(err, crdtstore.ErrNetwork):
		e.Code, e.Hint = CodeWrongNetwork, "set this host up with a token of the backup's network: syncagent restore-backup --dry-run prints one"
	case errors.Is(err, crdtstore.ErrPolicy):
		e.Code, e.Hint = CodeBadPolicy, "compare admins in the configuration with the network's; an old backup needs --admin-key with a host that joined later"
	case errors.Is(err, crdtstore.ErrDiskFull):
		e.Code, e.Hint = CodeDiskFull, rowOf(CodeDiskFull).hint
	default:
		return fmt.Errorf("restore: %w", err)
	}
	return e
}

// pins are the network and the admins of a configuration.
func (c *Config) pins() (network record.NetworkID, admins []record.PublicKey, err error) {
	if network, err = record.ParseNetworkID(c.Network); err != nil {
		return network, nil, err
	}
	for _, admin := range c.Admins {
		k, err := record.ParsePublicKey(admin)
		if err != nil {
			return network, nil, err
		}
		admins = append(admins, k)
	}
	return network, admins, nil
}
