package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

const exportHelp = `Copy what is below PREFIX to DEST: a directory that is empty or not there yet, a file
that ends in .tar, .tar.gz or .tgz, or else a file of JSON lines; "-" is standard output,
JSON lines unless --format says tar.

Names are those below PREFIX, so that import DEST PREFIX is the way back. Files have
the mode of their entry, or 0600; all that is made is for its owner only until then.
A path that has others below it cannot be a file: in a directory or a tar file it is left
out and reported, and the exit code is 8. An export is no backup of an agent: it holds no
history, authors or times to live.

With --backup the values are those of a backup, not of the agent, which need not run. So
older ones come back: export them, look at them, import them again.`

func (c *cli) exportCmd() *cobra.Command {
	var as, backup, identity string
	cmd := &cobra.Command{
		Use:   "export PREFIX DEST",
		Short: "Copy a part of the store to a directory, a tar file or JSON lines",
		Long:  exportHelp,
		Args:  args(2, "PREFIX", "DEST"),
		ValidArgsFunction: func(cmd *cobra.Command, words []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(words) == 1 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return c.completePaths(1)(cmd, words, typed)
		},
		RunE: func(cmd *cobra.Command, words []string) error {
			list := c.listAgent
			if backup == "-" {
				return usagef("--backup -: it is read more than once, so it must be a file")
			}
			if backup != "" {
				list = c.listBackup(backup, identity)
			}
			return c.export(cmd.Context(), list, words[0], words[1], format(as))
		},
	}
	cmd.Flags().StringVar(&as, "format", "", "`FORMAT` of DEST: dir, tar or json (default: by its name)")
	cmd.Flags().StringVar(&backup, "backup", "", "take the values from the backup in `FILE`")
	cmd.Flags().StringVar(&identity, "identity", "", "decrypt the backup with the age identity in `FILE`")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"dir", "tar", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// exportFormat is the format that a destination's name stands for.
func exportFormat(dest string) format {
	info, err := os.Stat(dest)
	switch {
	case dest == "-":
		return formatJSON
	case err == nil && info.IsDir(), strings.HasSuffix(dest, "/"):
		return formatDir
	case isTarName(dest):
		return formatTar
	case strings.HasSuffix(dest, ".json"), strings.HasSuffix(dest, ".jsonl"):
		return formatJSON
	}
	return formatDir
}

func isTarName(name string) bool { return strings.HasSuffix(name, ".tar") || zipped(name) }

func zipped(name string) bool {
	return strings.HasSuffix(name, ".tar.gz") || strings.HasSuffix(name, ".tgz")
}

// exporter takes entries under names relative to the prefix.
type exporter interface {
	entry(name string, e *apiv1.Entry, value io.Reader) error
	// finish ends it. A file gets its name when all of it is there, and durable; a directory keeps what has come.
	finish(err error) error
}

// lister calls fn for every entry at and below prefix, ascending by path, from one state. Value is nil unless asked for.
type lister func(ctx context.Context, prefix string, values bool, fn func(e *apiv1.Entry, value io.Reader) error) error

func (c *cli) listAgent(ctx context.Context, prefix string, values bool, fn func(*apiv1.Entry, io.Reader) error) error {
	client, err := c.dial()
	if err != nil {
		return err
	}
	_, err = listEntries(ctx, client, prefix, values, func(e *apiv1.Entry) error {
		if !values {
			return fn(e, nil)
		}
		r, err := fetch(ctx, client, e)
		if err != nil {
			return err
		}
		defer r.Close() //nolint:errcheck // read only
		return fn(e, r)
	})
	return err
}

// listBackup lists a backup. It is opened anew each time: it can be read once only.
func (c *cli) listBackup(file, identity string) lister {
	return func(ctx context.Context, prefix string, _ bool, fn func(*apiv1.Entry, io.Reader) error) error {
		cfg, err := c.loadNetworkConfig()
		if err != nil {
			return err
		}
		b, err := c.openBackup(file, identity)
		if err != nil {
			return err
		}
		defer b.Close()
		return b.List(ctx, cfg, prefix, fn)
	}
}

func (c *cli) export(ctx context.Context, list lister, prefix, dest string, as format) error {
	prefix, err := record.CleanPrefix(prefix)
	if err != nil {
		return err
	}
	if as == "" {
		as = exportFormat(dest)
	}
	var above map[string]bool
	total := 0 // unknown
	if as != formatJSON {
		if above, total, err = directories(ctx, list, prefix); err != nil {
			return err
		}
	}
	out, err := c.openExport(dest, as)
	if err != nil {
		return err
	}
	var shows *progress
	if dest != "-" {
		shows = c.newProgress("entries", func() int { return total })
	}
	written, left := 0, 0
	var faulty error // of the destination, not of the agent
	err = list(ctx, prefix, true, func(e *apiv1.Entry, value io.Reader) error {
		shows.step()
		name := strings.TrimPrefix(strings.TrimPrefix(e.GetPath(), strings.TrimSuffix(prefix, "/")), "/")
		switch {
		case name == "":
			shows.clear()
			c.warnLeftOut(e.GetPath(), "it is the prefix itself")
		case above[e.GetPath()]:
			shows.clear()
			c.warnLeftOut(e.GetPath(), "there are paths below it")
		default:
			written++
			in := &arriving{Reader: value}
			err := out.entry(name, e, in)
			if in.failed == nil {
				faulty = err
			}
			return err
		}
		left++
		return nil
	})
	shows.clear()
	if err != nil && faulty == nil {
		_ = out.finish(err) // the agent's error is the one that counts
		return err
	}
	if err = out.finish(faulty); err != nil {
		return failf(exitError, "file", "write %s: %w", dest, plain(err))
	}
	if dest != "-" {
		c.note("%d exported", written)
	}
	if left > 0 {
		return failf(exitPartly, "partly", "left out %d paths", left).withHint("each is named above with the reason")
	}
	return nil
}

func (c *cli) warnLeftOut(path, why string) {
	fmt.Fprintf(c.stderr, "syncagent: left out %s: %s\n", path, why)
}

// arriving remembers whether it was the agent's side that failed.
type arriving struct {
	io.Reader
	failed error
}

func (a *arriving) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		a.failed = err
	}
	return n, err
}

// directories gives the paths that have others below them, and counts all.
func directories(ctx context.Context, list lister, prefix string) (above map[string]bool, total int, err error) {
	above = map[string]bool{}
	err = list(ctx, prefix, false, func(e *apiv1.Entry, _ io.Reader) error {
		total++
		for p := path.Dir(e.GetPath()); p != "/" && !above[p]; p = path.Dir(p) {
			above[p] = true
		}
		return nil
	})
	return above, total, err
}

func (c *cli) openExport(dest string, as format) (exporter, error) {
	switch as {
	case formatDir:
		return newDirExport(dest)
	case formatTar, formatJSON:
	default:
		return nil, usagef("format %q: want dir, tar or json", as)
	}
	s := &streamExport{}
	if dest == "-" {
		s.out = bufio.NewWriterSize(c.stdout, 1<<16)
	} else {
		f, err := createFile(dest, 0o600)
		if err != nil {
			return nil, makeFailure("destination", dest, err)
		}
		s.file, s.out = f, bufio.NewWriterSize(f, 1<<16)
	}
	if as == formatTar {
		var to io.Writer = s.out
		if zipped(dest) {
			s.zip = gzip.NewWriter(s.out)
			to = s.zip
		}
		s.tar = tar.NewWriter(to)
	}
	return s, nil
}

// streamExport writes a tar file or JSON lines.
type streamExport struct {
	file *newFile // nil: standard output
	out  *bufio.Writer
	zip  *gzip.Writer // nil: not zipped
	tar  *tar.Writer  // nil: JSON
}

func (s *streamExport) entry(name string, e *apiv1.Entry, value io.Reader) error {
	if s.tar == nil {
		return s.line(name, e, value)
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: e.GetSize(), Mode: int64(exportMode(e)), ModTime: writtenAt(e)}
	if err := s.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(s.tar, value)
	return err
}

// line writes an entry as import reads it, and batch as well when the prefix was / and the value is small. The value
// is encoded as it comes.
func (s *streamExport) line(name string, e *apiv1.Entry, value io.Reader) error {
	var path strings.Builder
	printJSON(&path, "/"+name)
	mode := "" // before the value, so that import need not keep it
	if e.Mode != nil {
		mode = fmt.Sprintf("%04o", e.GetMode())
	}
	fmt.Fprintf(s.out, `{"op":"put","path":%s,"mode":"%s","value_base64":"`, strings.TrimSpace(path.String()), mode) // out keeps its errors
	encoder := base64.NewEncoder(base64.StdEncoding, s.out)
	if _, err := io.Copy(encoder, value); err != nil {
		return err
	}
	err := encoder.Close()
	fmt.Fprint(s.out, "\"}\n")
	return err
}

func (s *streamExport) finish(err error) error {
	if err == nil && s.tar != nil {
		err = s.tar.Close()
	}
	if err == nil && s.zip != nil {
		err = s.zip.Close()
	}
	if err == nil {
		err = s.out.Flush()
	}
	if s.file == nil {
		return err
	}
	return s.file.finish(err)
}

// exportMode is the mode of a file made of an entry.
func exportMode(e *apiv1.Entry) fs.FileMode {
	if e.Mode == nil {
		return 0o600
	}
	return fs.FileMode(e.GetMode())
}

// writtenAt is when the entry was written, to the second.
func writtenAt(e *apiv1.Entry) time.Time {
	if t, err := time.Parse(time.RFC3339, timeOf(e.GetHlc())); err == nil {
		return t
	}
	return time.Time{}
}

// dirExport writes files into a directory that was empty. Its root keeps every name inside.
type dirExport struct{ root *os.Root }

func newDirExport(dest string) (*dirExport, error) {
	if err := os.MkdirAll(dest, 0o700); err != nil {
		return nil, makeFailure("destination", dest, err)
	}
	root, err := os.OpenRoot(dest)
	if err != nil {
		return nil, makeFailure("destination", dest, err)
	}
	entries, err := readDir(root, ".")
	if err == nil && len(entries) > 0 {
		err = usagef("%s is not empty", dest).withHint("syncagent mirror --once brings a directory up to date")
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &dirExport{root}, nil
}

func (d *dirExport) entry(name string, e *apiv1.Entry, value io.Reader) error {
	if err := d.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, value)
	if err == nil {
		err = f.Chmod(exportMode(e))
	}
	return errors.Join(err, f.Close())
}

func (d *dirExport) finish(err error) error { return errors.Join(err, d.root.Close()) }
