package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
	"syncagent/sync/mirror"
	"syncagent/sync/trigger"
)

const importHelp = `Copy the files of a directory into the store: DIR/a/b becomes PREFIX/a/b, with the
permission bits of the file. Files that the store already has with the same content and
mode cause no write. Large imports are several atomic writes of at most 1,000 files.

Symbolic links are not followed. They, special files, files over the agent's limits.value
and names that cannot be paths are reported and left out; the exit code is then 8. Names
beginning with .syncagent belong to mirrors and are left out silently. A file over 256 KiB
is a write of its own.

In place of DIR, a tar file (gzipped or not), the JSON lines of export, what
"consul kv export" writes, or the answer of "etcdctl get --prefix -w json"; "-" is
standard input. The kind is seen from the content, or said with --format.

--watch goes on after that, and puts and deletes what changes in DIR, as a mirror with
--mode push --preserve-mode does; it keeps a marker file in DIR, and writes as the agent, so
not with --key.

--delete also deletes the paths below PREFIX that have no file in DIR. What stands for
a file that was left out or could not be read stays.`

type importFlags struct {
	remove, yes, dryRun, watch bool
	format                     string
	wait                       waitFlags
}

func (c *cli) importCmd() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import DIR|FILE|- PREFIX",
		Short: "Copy a directory, a tar file or another store's export into the store",
		Long:  importHelp,
		Args:  args(2, "DIR|FILE|-", "PREFIX"),
		ValidArgsFunction: func(cmd *cobra.Command, words []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(words) == 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return c.completePaths(2)(cmd, words, typed)
		},
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.importDir(cmd.Context(), words[0], words[1], f)
		},
	}
	cmd.Flags().BoolVar(&f.remove, "delete", false, "delete the paths below PREFIX that have no file in DIR")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "with --delete: even if DIR is empty")
	cmd.Flags().BoolVarP(&f.dryRun, "dry-run", "n", false, "print what would be written and deleted, change nothing")
	cmd.Flags().BoolVar(&f.watch, "watch", false, "go on, and put and delete what changes in DIR")
	cmd.Flags().StringVar(&f.format, "format", "", "what it is: `dir`, tar, json, consul or etcd (default: by its content)")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"dir", "tar", "json", "consul", "etcd"}, cobra.ShellCompDirectiveNoFileComp))
	f.wait.add(cmd)
	exclusive(cmd, "watch", "dry-run")
	c.addKeyFlag(cmd)
	return cmd
}

// shown is what the store shows of a path, as far as an import compares it.
type shown struct {
	sum  [sha256.Size]byte
	mode uint32
}

// importer copies one directory.
type importer struct {
	cli     *cli
	flags   importFlags
	have    map[string]shown // at and below the prefix, before the import
	kept    map[string]bool  // paths of have that a file stands for
	skipped []string         // paths of what was left out; all at or below them stays
	batch   changer
	shows   *progress
	report  importReport
}

// importReport is what an import did.
type importReport struct {
	Written   int `json:"written"`
	Unchanged int `json:"unchanged"`
	Deleted   int `json:"deleted"`
	Skipped   int `json:"skipped"`
}

func (c *cli) importDir(ctx context.Context, dir, prefix string, flags importFlags) error {
	prefix, err := record.CleanPrefix(prefix)
	if err != nil {
		return err
	}
	switch as := format(flags.format); as {
	case "", formatDir, formatTar, formatJSON, formatConsul, formatEtcd:
	default:
		return usagef("--format %q: want dir, tar, json, consul or etcd", flags.format)
	}
	if flags.watch && c.signKey != "" {
		return usagef("--watch and --key exclude each other: what changes in DIR later is written as the agent")
	}
	waiter, err := flags.wait.parse(c)
	if err != nil {
		return err
	}
	root, stream, err := c.openImport(dir, format(flags.format))
	if err != nil {
		return err
	}
	if root != nil {
		defer root.Close() //nolint:errcheck // read only
	} else {
		defer stream.Close() //nolint:errcheck // read only
	}
	if flags.watch && root == nil {
		return usagef("--watch needs a directory, not %s", dir)
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	i := &importer{cli: c, flags: flags, have: map[string]shown{}, kept: map[string]bool{}}
	i.batch = changer{cli: c, client: client, keep: waiter != nil}
	if err := waiter.check(ctx, client); err != nil {
		return err
	}
	if err := i.listStore(ctx, prefix); err != nil {
		return err
	}
	err = i.copy(ctx, root, stream, dir, prefix)
	copied := err == nil
	err = i.finish(err)
	if copied {
		if late := waiter.await(ctx, client, i.batch.writes...); late != nil {
			return late
		}
	}
	if !copied || !flags.watch {
		return err
	}
	return c.mirror(ctx, prefix, dir, mirrorFlags{mode: string(mirror.ModePush), preserveMode: true, maxDelete: 0.5, timeout: trigger.DefaultTimeout})
}

// copy imports what was opened: a directory as a root, anything else as a stream.
func (i *importer) copy(ctx context.Context, root *os.Root, stream io.Reader, name, prefix string) (err error) {
	if !i.flags.dryRun && !i.cli.verbose { // which print lines of their own
		i.shows = i.cli.newProgress("files", func() int { return countFiles(root) })
	}
	if root != nil {
		err = i.copyFiles(ctx, root, prefix)
	} else if err = i.copyStream(ctx, stream, format(i.flags.format), prefix); err != nil && name != "-" {
		err = fmt.Errorf("%s: %w", name, err)
	}
	if err == nil && i.flags.remove {
		err = i.deleteRest(ctx)
	}
	if err != nil {
		return err
	}
	return i.batch.flush(ctx)
}

func (i *importer) listStore(ctx context.Context, prefix string) error {
	_, err := listEntries(ctx, i.batch.client, prefix, true, func(e *apiv1.Entry) error {
		if e.GetPath() == prefix {
			return nil // an entry at the prefix itself stands for no file below DIR
		}
		s := shown{sha256.Sum256(e.GetValue()), e.GetMode()}
		if e.GetLarge() {
			copy(s.sum[:], e.GetLargeId())
		}
		i.have[e.GetPath()] = s
		return nil
	})
	return err
}

func (i *importer) copyFiles(ctx context.Context, root *os.Root, prefix string) error {
	return walkFiles(root, func(name string, err error) {
		i.skip(pathBelow(prefix, name), name, err)
	}, func(name string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := pathBelow(prefix, name)
		if err := checkWritable(path); err != nil {
			i.skip(path, name, err)
			return nil
		}
		f, info, err := openRegular(root, name)
		if err != nil {
			i.skip(path, name, err)
			return nil
		}
		defer f.Close() //nolint:errcheck // read only
		return i.put(ctx, path, name, f, info.Mode())
	})
}

// put adds a file to the import unless the store shows it already.
func (i *importer) put(ctx context.Context, path, name string, content io.Reader, mode fs.FileMode) error {
	i.kept[path] = true
	i.shows.step()
	v, err := newValueInput(content)
	if err != nil {
		return i.unreadable(path, name, err)
	}
	put := &apiv1.PutRequest{Path: path, Value: v.small}
	if m := uint32(mode.Perm()); m != 0 { // a mode of 0 cannot be said; the mirror's default stands in
		put.Mode = &m
	}
	if v.large != nil {
		return i.putLarge(ctx, put, name, v)
	}
	if i.same(put, sha256.Sum256(v.small)) {
		i.report.Unchanged++
		return nil
	}
	i.report.Written++
	return i.add(ctx, "put", path, len(v.small), &apiv1.Op{Op: &apiv1.Op_Put{Put: put}})
}

// same tells whether the store shows this already.
func (i *importer) same(put *apiv1.PutRequest, sum [sha256.Size]byte) bool {
	old, ok := i.have[put.GetPath()]
	return ok && old.mode == put.GetMode() && old.sum == sum
}

// putLarge writes a file over 256 KiB by itself, after those before it. One over the agent's limit is left out. Whether
// the store shows it already is seen before it is sent, or, if it can be read but once, at its end: then it is taken back.
func (i *importer) putLarge(ctx context.Context, put *apiv1.PutRequest, name string, v *valueInput) error {
	content := &unlessSame{Reader: v, same: func(sum [sha256.Size]byte) bool { return i.same(put, sum) }}
	if _, known := i.have[put.GetPath()]; known && (v.source != nil || i.flags.dryRun) {
		_, err := io.Copy(io.Discard, content)
		if errors.Is(err, errUnchanged) {
			i.report.Unchanged++
			return nil
		}
		if err == nil && !i.flags.dryRun {
			_, err = content.Seek(0, io.SeekStart)
		}
		if err != nil {
			return i.unreadable(put.GetPath(), name, err)
		}
	}
	if i.say("put", put.GetPath()); i.flags.dryRun {
		i.report.Written++
		return nil
	}
	if err := i.batch.flush(ctx); err != nil {
		return err
	}
	w, err := i.cli.sendLarge(ctx, i.batch.client, put, content)
	if errors.Is(err, errUnchanged) {
		i.report.Unchanged++
		return nil
	}
	if e := agent.ErrorOf(err); e != nil && e.Code == agent.CodeTooLarge {
		i.skip(put.GetPath(), name, errors.New(e.Message))
		return nil
	}
	if bad, ok := errors.AsType[*failure](err); ok {
		return bad
	}
	if err != nil {
		return err
	}
	i.report.Written++
	i.batch.note(w, []*apiv1.Op{{Op: &apiv1.Op_Put{Put: put}}})
	return nil
}

// unreadable leaves a file out, or ends the import if the input as a whole is faulty.
func (i *importer) unreadable(path, name string, err error) error {
	if bad, ok := errors.AsType[*failure](err); ok {
		return bad
	}
	i.skip(path, name, plain(err))
	return nil
}

// deleteRest deletes what the store shows and no file stands for.
func (i *importer) deleteRest(ctx context.Context) error {
	var gone []string
	for path := range i.have {
		left := slices.ContainsFunc(i.skipped, func(s string) bool { return record.Covers(s, path) })
		if !i.kept[path] && !left {
			gone = append(gone, path)
		}
	}
	slices.Sort(gone)
	if len(i.kept) == 0 && len(gone) > 0 && !i.flags.yes && !i.flags.dryRun {
		return failf(exitPrecondition, "held", "the directory has no file, --delete would delete all %d paths", len(gone)).
			withHint("if that is meant, add -y")
	}
	for _, path := range gone {
		i.report.Deleted++
		if err := i.add(ctx, "delete", path, 0, deleteOp(path)); err != nil {
			return err
		}
	}
	return nil
}

func (i *importer) add(ctx context.Context, verb, path string, size int, op *apiv1.Op) error {
	if i.say(verb, path); i.flags.dryRun {
		return nil
	}
	return i.batch.add(ctx, path, size, op)
}

// say tells what is done, or would be.
func (i *importer) say(verb, path string) {
	if i.flags.dryRun {
		fmt.Fprintf(i.cli.stdout, "%s %s\n", verb, path)
	} else if i.cli.verbose {
		i.cli.note("%s %s", verb, path)
	}
}

// skip reports what is left out. It, and what may lie below it, stays in the store as it is.
func (i *importer) skip(path, name string, err error) {
	i.report.Skipped++
	i.shows.clear()
	i.skipped = append(i.skipped, path)
	fmt.Fprintf(i.cli.stderr, "syncagent: left out %q: %v\n", name, err)
}

// finish prints the result and makes the exit code of it.
func (i *importer) finish(err error) error {
	r := i.report
	i.shows.clear()
	if err != nil {
		return i.batch.failure(err, "wrote")
	}
	switch {
	case i.flags.dryRun:
	case i.cli.json():
		printJSON(i.cli.stdout, r)
	default:
		i.cli.note("%d written, %d unchanged, %d deleted", r.Written, r.Unchanged, r.Deleted)
	}
	if r.Skipped > 0 {
		return failf(exitPartly, "partly", "left out %d of the directory's names", r.Skipped).
			withHint("each is named above with the reason")
	}
	return nil
}

// countFiles tells how many files an import looks at, as far as it can be known before; 0: not at all.
func countFiles(root *os.Root) (n int) {
	if root != nil {
		_ = walkFiles(root, func(string, error) {}, func(string) error { n++; return nil }) // the import meets the error
	}
	return n
}

// checkWritable tells whether a file can stand at path.
func checkWritable(path string) error {
	if record.Reserved(path) {
		return errors.New("/.sys is reserved")
	}
	return record.CheckPath(path)
}

func pathBelow(prefix, name string) string {
	if prefix == "/" {
		return "/" + name
	}
	return prefix + "/" + name
}
