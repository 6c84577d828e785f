package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"filippo.io/age"
	"github.com/spf13/cobra"

	apiv1 "syncagent/agent/api/v1"
)

const backupHelp = `Copy all that this agent holds into one compressed file: the state of this moment, with
history and policies, while writes go on. "-" is standard output. What the agent may not
read is not in it, nor is any key: keep identity.key and admin.key somewhere else.

A network of several hosts needs no backup to survive the loss of some: a host that
comes back fetches what it lacks. A backup is for the day when all are lost.

With --recipient age1... the file can only be read with that age identity (age-keygen
makes one). Without it, whoever has the file reads the values; its mode is 0600.

syncagent restore-backup makes an agent's store of it; --dry-run there checks it.`

func (c *cli) backupCmd() *cobra.Command {
	var recipients []string
	cmd := &cobra.Command{
		Use:     "backup FILE|-",
		Short:   "Copy all that this agent holds into one file",
		Long:    backupHelp,
		Example: "  syncagent backup /var/backups/syncagent-$(date +%F)",
		Args:    args(1, "FILE|-"),
		RunE: func(cmd *cobra.Command, words []string) error {
			to, err := parseRecipients(recipients)
			if err != nil {
				return err
			}
			return c.backup(cmd.Context(), words[0], to)
		},
	}
	cmd.Flags().StringArrayVar(&recipients, "recipient", nil, "encrypt to the age recipient `AGE1...`; may be given again")
	return cmd
}

func parseRecipients(words []string) ([]age.Recipient, error) {
	var to []age.Recipient
	for _, w := range words {
		r, err := age.ParseX25519Recipient(w)
		if err != nil {
			return nil, usagef("--recipient %q: want an age recipient, which begins with age1", w).
				withHint("age-keygen -o FILE makes an identity and prints its recipient")
		}
		to = append(to, r)
	}
	return to, nil
}

func (c *cli) backup(ctx context.Context, name string, to []age.Recipient) error {
	if name == "-" && c.stdout.terminal() {
		return usagef("a backup is not for a terminal: name a file, or pipe it on")
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	ctx, cancel := c.streaming(ctx)
	defer cancel()
	stream, err := client.Agent.Backup(ctx, connect.NewRequest(&apiv1.BackupRequest{}))
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // its error is stream.Err
	if !stream.Receive() {
		return stream.Err() // before a file is made
	}
	var out io.Writer = c.stdout
	finish := func(err error) error { return err }
	if name != "-" {
		f, err := createFile(name, 0o600)
		if err != nil {
			return makeFailure("file", name, err)
		}
		out, finish = f, f.finish
	}
	last, size, err := c.copyBackup(stream, out, to)
	if e := finish(err); e != nil && err == nil {
		return failf(exitError, "file", "write %s: %w", name, plain(e))
	}
	if err != nil {
		return err
	}
	if n := last.GetMissingEntries(); n > 0 {
		c.note("%d entries that this agent may read had not arrived here and are not in the backup", n)
	}
	switch {
	case name != "-" && c.json():
		printJSON(c.stdout, map[string]any{
			"file": name, "bytes": size, "blocks": last.GetBlocks(), "entries": last.GetEntries(), "view_digest": last.GetViewDigest(),
		})
	case name != "-":
		c.note("%d entries in %s, %d bytes", last.GetEntries(), name, size)
	}
	return nil
}

// copyBackup writes what the stream brings, the message that is there first, and gives the last one.
func (c *cli) copyBackup(stream *connect.ServerStreamForClient[apiv1.BackupResponse], w io.Writer, to []age.Recipient) (*apiv1.BackupResponse, int64, error) {
	counted := &countingWriter{w: w}
	var out io.WriteCloser = counted
	if len(to) > 0 {
		encrypted, err := age.Encrypt(counted, to...)
		if err != nil {
			return nil, 0, fmt.Errorf("encrypt backup: %w", err)
		}
		out = encrypted
	}
	shows := c.newProgress("blocks", func() int { return int(stream.Msg().GetBlocks()) })
	defer shows.clear()
	var last *apiv1.BackupResponse
	for more := true; more; more = stream.Receive() {
		last = stream.Msg()
		if _, err := out.Write(last.GetData()); err != nil {
			return nil, 0, fmt.Errorf("write backup: %w", plain(err))
		}
		shows.at(int(last.GetBlocksDone()), int(last.GetBlocks()))
	}
	if err := stream.Err(); err != nil {
		return nil, 0, err
	}
	if last.GetViewDigest() == "" {
		return nil, 0, errors.New("the agent ended the backup in the middle")
	}
	return last, counted.n, out.Close()
}

// countingWriter counts bytes. Closing it does nothing: its file is closed by who opened it.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

func (c *countingWriter) Close() error { return nil }
