package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
	"syncagent/sync/mirror"
	"syncagent/sync/trigger"
)

const mirrorHelp = `Keep DIR equal to what is at and below PREFIX: /certs/web/tls.key becomes
DIR/web/tls.key. A file always has the full content of one version; only files that the
mirror wrote are ever removed; local edits of them are undone, unless --drift says keep
(until the store changes) or report.

With --mode push PREFIX follows DIR instead: new and changed files are put, in atomic
writes, and paths that this mirror put are deleted when their files go. With both, each
follows the other; of two edits the later one wins, the other stays in the history.

Runs until interrupted. With --once it makes DIR equal to PREFIX and ends: exit code 0
when it is, 6 when more than half of the files (and more than 20) would have been
removed, 8 when some paths cannot be files here. --dry-run prints what --once would do,
one path a line, and changes nothing.

--include and --exclude choose paths by patterns such as "*.pem" (a name anywhere) or
"web/**" (from the top); what is left out is not touched.

--check runs a shell command before a change goes live, with all files as they would be
in $SYNCAGENT_STAGED; when it fails the old files stay, and it is tried again later.
--on-change runs one after a change; with --rollback its failure brings the old files
back. Changed paths come on standard input.

With --swap directory all files change at one instant: each name in DIR is a link through
DIR/.syncagent-data, which leads to a directory that holds one state of PREFIX.

--triggers-dir names a directory of JSON files such as
  {"path": "/certs/web", "command": "systemctl reload nginx"}
(no dot in the file's name): commands that run after files at or below path changed.

The configuration can hold mirrors as well, under mirrors; the agent runs those.`

// mirrorFlags are what the user said beside prefix and directory.
type mirrorFlags struct {
	once                                      bool
	mode, triggersDir, fileMode, owner, group string
	stateDir                                  string
	maxDelete                                 float64
	dryRun, rollback, preserveMode            bool
	conflictCopy                              bool
	include, exclude                          []string
	drift, swap, check, onChange              string
	timeout                                   time.Duration
}

func (c *cli) mirrorCmd() *cobra.Command {
	var f mirrorFlags
	cmd := &cobra.Command{
		Use:   "mirror PREFIX DIR",
		Short: "Keep a directory equal to a prefix",
		Long:  mirrorHelp,
		Args:  args(2, "PREFIX", "DIR"),
		ValidArgsFunction: func(cmd *cobra.Command, words []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(words) == 1 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return c.completePaths(1)(cmd, words, typed)
		},
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.mirror(cmd.Context(), words[0], words[1], f)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.once, "once", false, "make DIR equal to PREFIX and end")
	fl.StringVar(&f.mode, "mode", "pull", "`pull`: DIR follows PREFIX, push: PREFIX follows DIR, or both")
	fl.BoolVar(&f.preserveMode, "preserve-mode", false, "with push and both: put the permission bits of files, too")
	fl.BoolVar(&f.conflictCopy, "conflict-copy", false, "with both: keep a local edit that loses as a file of its own, too")
	fl.StringVar(&f.triggersDir, "triggers-dir", "", "`DIR` of JSON files: what to run after a change")
	fl.StringVar(&f.fileMode, "file-mode", "", "permission bits `0644` of files whose entry has none")
	fl.StringVar(&f.owner, "owner", "", "`USER` that the files belong to")
	fl.StringVar(&f.group, "group", "", "`GROUP` that the files belong to")
	fl.Float64Var(&f.maxDelete, "max-delete", 0.5, "`PART` of the files that may be removed at once; 1: all")
	fl.BoolVarP(&f.dryRun, "dry-run", "n", false, "print what --once would do, change nothing")
	fl.StringArrayVar(&f.include, "include", nil, "mirror only what matches `PATTERN`; may be repeated")
	fl.StringArrayVar(&f.exclude, "exclude", nil, "leave out what matches `PATTERN`; may be repeated")
	fl.StringVar(&f.drift, "drift", "", "what becomes of local changes: `restore` (default), keep or report")
	fl.StringVar(&f.swap, "swap", "files", "how a change becomes visible: `files` one by one, or directory, all at one instant")
	fl.StringVar(&f.check, "check", "", "shell `COMMAND` that looks at a change before it goes live")
	fl.StringVar(&f.onChange, "on-change", "", "shell `COMMAND` that runs after a change")
	fl.BoolVar(&f.rollback, "rollback", false, "bring the old files back if --on-change fails")
	f.timeout = trigger.DefaultTimeout
	fl.Var((*duration)(&f.timeout), "command-timeout", "how long --check and --on-change may take")
	fl.StringVar(&f.stateDir, "state-dir", "", "`DIR` for the mirror's journal (default: $XDG_STATE_HOME/syncagent)")
	_ = cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"pull", "push", "both"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("drift", cobra.FixedCompletions([]string{"restore", "keep", "report"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("swap", cobra.FixedCompletions([]string{"files", "directory"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.AddCommand(c.mirrorConfirmCmd())
	return cmd
}

func (c *cli) mirror(ctx context.Context, prefix, dir string, f mirrorFlags) error {
	o, err := f.options(prefix, dir)
	if err != nil {
		return err
	}
	if o.Log, _, err = agent.NewLogger(c.stderr, agent.LogConfig{Level: c.logLevel(), Format: "auto"}); err != nil {
		return err
	}
	var faults error
	var specs []trigger.Spec
	if f.triggersDir != "" {
		if specs, faults = trigger.Load(f.triggersDir); faults != nil && len(specs) == 0 {
			return failf(exitUsage, "bad_trigger", "%w", faults)
		}
	}
	if f.onChange != "" && !f.rollback { // with rollback it is the mirror's own to run
		specs = append(specs, trigger.Spec{Name: "mirror/on_change", Path: o.Prefix, Command: f.onChange, Timeout: f.timeout})
	}
	if len(specs) > 0 {
		o.Triggers = trigger.New(trigger.Options{Specs: specs, Prefix: o.Prefix, Dir: o.Dir, Log: o.Log})
	}
	if err := mirror.CheckDirs([]string{o.Dir}, c.taken(f, o)); err != nil {
		return failf(exitUsage, "usage", "%w", err)
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	m, err := mirror.New(apiSource{client}, o)
	if err != nil {
		return failf(exitUsage, "usage", "%w", err)
	}
	if faults != nil {
		c.note("some triggers are left out: %v", faults)
	}
	ctx, cancel := c.streaming(ctx)
	defer cancel()
	if f.dryRun {
		return c.previewMirror(ctx, m)
	}
	if !f.once {
		return m.Run(ctx)
	}
	if err := mirrorFailure(m.Once(ctx)); err != nil {
		return err
	}
	if faults != nil {
		return failf(exitPartly, "partly", "the directory is equal, but some triggers are faulty: %w", faults)
	}
	return nil
}

// previewMirror prints what the mirror would do.
func (c *cli) previewMirror(ctx context.Context, m *mirror.Mirror) error {
	steps, err := m.Preview(ctx)
	if err != nil {
		return mirrorFailure(err)
	}
	for _, s := range steps {
		switch {
		case c.json():
			printJSON(c.stdout, stepJSON{string(s.Verb), s.Path, s.Reason})
		case s.Reason != "":
			fmt.Fprintf(c.stdout, "%s %s: %s\n", s.Verb, s.Path, s.Reason)
		default:
			fmt.Fprintf(c.stdout, "%s %s\n", s.Verb, s.Path)
		}
	}
	return nil
}

// stepJSON is a line of mirror --dry-run.
type stepJSON struct {
	Verb   string `json:"verb"`
	Path   string `json:"path"`
	Reason string `json:"reason,omitempty"`
}

func (c *cli) mirrorConfirmCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "confirm NAME",
		Short: "Agree to the removals that a mirror of the agent's configuration holds",
		Long: `A mirror of the agent's configuration that would remove more than max_delete of its files
at once holds that, and says so in status. This lets exactly those removals happen that
are held at this moment. NAME is the mirror's name, or its prefix if it has none.`,
		Args: args(1, "NAME"),
		RunE: func(cmd *cobra.Command, words []string) error {
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			r, err := client.Agent.ConfirmMirror(ctx, connect.NewRequest(&apiv1.ConfirmMirrorRequest{Name: words[0]}))
			if err != nil {
				return err
			}
			if c.json() {
				printJSON(c.stdout, map[string]int64{"removals": r.Msg.GetRemovals()})
			} else {
				c.note("%d files are removed", r.Msg.GetRemovals())
			}
			return nil
		},
	}
}

// options checks the flags.
func (f *mirrorFlags) options(prefix, dir string) (o mirror.Options, err error) {
	if f.maxDelete <= 0 {
		return o, usagef("--max-delete %g: want a part above 0, 1 for all", f.maxDelete)
	}
	mode, err := parseMode(f.fileMode)
	if err != nil {
		return o, err
	}
	state, err := f.journalDir()
	if err != nil {
		return o, err
	}
	if prefix, err = record.CleanPrefix(prefix); err != nil {
		return o, err
	}
	if f.rollback && f.onChange == "" {
		return o, usagef("--rollback needs --on-change: its failure is what brings the old files back")
	}
	if f.timeout <= 0 || f.timeout > trigger.MaxTimeout {
		return o, usagef("--command-timeout %s: want a duration up to %s", f.timeout, trigger.MaxTimeout)
	}
	o = mirror.Options{
		Prefix: prefix, Dir: dir, StateDir: state, Owner: f.owner, Group: f.group, MaxDelete: f.maxDelete,
		Mode: mirror.Mode(f.mode), Swap: mirror.Swap(f.swap), PreserveMode: f.preserveMode, Include: f.include, Exclude: f.exclude, Drift: mirror.Drift(f.drift), Timeout: f.timeout,
	}
	if f.mode == "pull" && (f.preserveMode || f.conflictCopy) {
		return o, usagef("--preserve-mode and --conflict-copy say nothing with --mode pull")
	}
	if f.mode == "push" && (f.check != "" || f.onChange != "" || f.conflictCopy) {
		return o, usagef("--check, --on-change and --conflict-copy say nothing with --mode push: no file here changes")
	}
	if f.conflictCopy {
		if o.ConflictCopy, err = os.Hostname(); err != nil {
			return o, fmt.Errorf("name conflict copies: %w", err)
		}
	}
	if f.check != "" {
		o.Check = []string{"/bin/sh", "-c", f.check}
	}
	if f.rollback {
		o.Trial = []string{"/bin/sh", "-c", f.onChange}
	}
	if mode != nil {
		o.FileMode = os.FileMode(*mode)
	}
	if o.Dir, err = filepath.Abs(dir); err != nil {
		return o, fileFailure("directory", dir, err)
	}
	return o, nil
}

// taken lists the folders of ours, and of the agent on this host if its configuration is there, that the mirrored
// directory must not hold.
func (c *cli) taken(f mirrorFlags, o mirror.Options) []string {
	taken := []string{o.StateDir}
	if f.triggersDir != "" {
		taken = append(taken, f.triggersDir)
	}
	if cfg, err := c.loadConfig(nil); err == nil {
		taken = append(taken, cfg.OwnFiles()...)
	}
	return taken
}

// journalDir is where the mirror remembers what it wrote; without that memory nothing would ever be removed.
func (f *mirrorFlags) journalDir() (string, error) {
	if f.stateDir != "" {
		return filepath.Abs(f.stateDir)
	}
	state, err := stateHome()
	if err != nil {
		return "", usagef("no place for the mirror's journal: %v", err).withHint("name a directory with --state-dir")
	}
	return filepath.Join(state, "syncagent", "mirrors"), nil
}

// stateHome is $XDG_STATE_HOME or ~/.local/state.
func stateHome() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "state"), nil
}

// mirrorFailure gives the errors of a mirror their exit codes.
func mirrorFailure(err error) error {
	switch {
	case errors.Is(err, mirror.ErrHeld):
		return failf(exitPrecondition, "held", "%w", err).
			withHint("nothing was removed; if that many files shall go, repeat with --max-delete 1")
	case errors.Is(err, mirror.ErrHalted):
		return failf(exitError, "halted", "%w", err)
	case errors.Is(err, mirror.ErrBusy):
		return failf(exitError, string(agent.CodeInUse), "%w", err)
	case errors.Is(err, mirror.ErrIncomplete):
		return failf(exitPartly, "partly", "%w", err)
	}
	return err
}

// logLevel is how much the long-running commands tell.
func (c *cli) logLevel() string {
	switch {
	case c.verbose:
		return "debug"
	case c.quiet:
		return "error"
	}
	return "info"
}
