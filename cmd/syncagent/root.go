package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"syncagent/agent"
)

// cli is one run of the program: where it reads and writes, and the global flags.
type cli struct {
	stdin  *input
	stdout *output
	stderr io.Writer

	configFile string
	socket     string
	server     agent.Target // by https; the zero value: by the socket
	output     string
	quiet      bool
	verbose    bool
	timeout    time.Duration
	signKey    string // file of the key that signs what a command writes; empty: the agent signs
}

const rootHelp = `syncagent keeps a tree of small values equal on many hosts, and mirrors it to disk.

One agent runs on every host; any host may write what the policy allows, and every
host ends up with the same data. Start with

  syncagent init            on the first host: prints a token
  syncagent join TOKEN      on every other one: prints a line for ` + "`syncagent acl admit`" + `
  syncagent agent           runs the agent

Every flag can be given by the environment: SYNCAGENT_SOCKET for the global --socket,
SYNCAGENT_PUT_MODE for --mode of put, and so on. A flag goes before the environment,
the environment before the config file.

Exit codes: 0 ok, 1 error, 2 wrong usage, path, value, config or policy text, 3 not
found, 4 denied, 5 agent not reachable, 6 precondition failed, 7 stored but not yet by
as many agents as asked for, 8 some of many failed, 130 interrupted.`

func (c *cli) rootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:               "syncagent",
		Short:             "Keep a tree of small values equal on many hosts",
		Long:              rootHelp,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: c.prepare,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	group(root)
	f := root.PersistentFlags()
	f.SortFlags = false
	f.StringVar(&c.configFile, "config", "", "config `FILE` (default: the user's, else /etc/syncagent/syncagent.yaml)")
	f.StringVar(&c.socket, "socket", "", "the agent's socket `PATH` (default: api.socket of the config)")
	f.StringVar(&c.server.Address, "server", "", "agents on other hosts: `URL,...` https://HOST:PORT; the next is used when one is down")
	f.StringVar(&c.server.Cert, "cert", "", "certificate `FILE` of the client, for --server (default: made of an identity key)")
	f.StringVar(&c.server.Key, "key-file", "", "its key `FILE`, or an identity key")
	f.StringVar(&c.server.CA, "ca", "", "authorities `FILE` that may sign for --server (default: those of the system)")
	f.StringVarP(&c.output, "output", "o", "", "`FORMAT` of the output: json, or what the command names")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "print results and errors only")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "say more")
	f.Var((*duration)(&c.timeout), "timeout", "give up after `D` (default 30s for short requests, none for streams)")
	root.SetFlagErrorFunc(flagFailure)
	root.AddGroup(
		&cobra.Group{ID: "data", Title: "Read and write:"},
		&cobra.Group{ID: "setup", Title: "Set up and run:"},
		&cobra.Group{ID: "look", Title: "Look and steer:"},
	)
	c.addCommands(root)
	root.SetHelpCommand(helpCmd(root))
	return root
}

// addCommands lists what works; a command that does not is not offered.
func (c *cli) addCommands(root *cobra.Command) {
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			cmd.Flags().SortFlags = false
			root.AddCommand(cmd)
		}
	}
	add("data", c.putCmd(), c.getCmd(), c.lsCmd(), c.rmCmd(), c.countCmd(), c.batchCmd(), c.watchCmd(), c.historyCmd(),
		c.restoreCmd(), c.importCmd(), c.exportCmd(), c.mirrorCmd())
	add("setup", c.initCmd(), c.joinCmd(), c.tokenCmd(), c.agentCmd(), c.reloadCmd(), c.backupCmd(), c.restoreBackupCmd(), c.aclCmd(),
		c.certCmd(), c.configCmd(), c.completionCmd(), c.manpageCmd())
	add("look", c.statusCmd(), c.peersCmd(), c.rolloutCmd(), c.doctorCmd(), c.diffCmd(), c.idCmd(), c.versionCmd())
}

// prepare runs before every command: flags from the environment, then checks that all commands share.
func (c *cli) prepare(cmd *cobra.Command, _ []string) error {
	if err := fromEnvironment(cmd); err != nil {
		return err
	}
	known := []string{"", "text", "json"}
	if formats, ok := cmd.Annotations["formats"]; ok {
		known = append(known, strings.Fields(formats)...)
	}
	if !slices.Contains(known, c.output) {
		return usagef("output format %q: %s knows %s", c.output, cmd.CommandPath(), strings.Join(known[1:], ", "))
	}
	if a, b, ok := strings.Cut(cmd.Annotations["exclusive"], " "); ok && cmd.Flags().Changed(a) && cmd.Flags().Changed(b) {
		return usagef("--%s and --%s exclude each other", a, b)
	}
	switch s := c.server; {
	case s.Address != "" && c.socket != "":
		return usagef("--socket and --server exclude each other")
	case s.Address == "" && (s.Cert != "" || s.Key != "" || s.CA != ""):
		return usagef("--cert, --key-file and --ca need --server")
	}
	if c.timeout < 0 {
		return usagef("--timeout %s: it cannot be negative", c.timeout)
	}
	return nil
}

// fromEnvironment sets the flags that the command line did not.
func fromEnvironment(cmd *cobra.Command) error {
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" {
			return
		}
		name := envName(cmd, f)
		value, ok := os.LookupEnv(name)
		if !ok {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			errs = append(errs, usagef("environment %s: %v", name, err))
		}
	})
	return errors.Join(errs...)
}

// envName gives SYNCAGENT_FLAG for global flags and SYNCAGENT_COMMAND_FLAG for a command's own.
func envName(cmd *cobra.Command, f *pflag.Flag) string {
	words := []string{cmd.Root().Name(), f.Name}
	if cmd.Root().PersistentFlags().Lookup(f.Name) != f {
		words = append(strings.Fields(cmd.CommandPath()), f.Name)
	}
	return strings.ToUpper(strings.ReplaceAll(strings.Join(words, "_"), "-", "_"))
}

// group makes cmd one that only holds others: without a name it prints its help, with an unknown one it suggests.
func group(cmd *cobra.Command) {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		f := usagef("unknown command %q", strings.TrimSpace(cmd.CommandPath()+" "+args[0])).
			withHint("`%s --help` lists the commands", cmd.CommandPath())
		var names []string
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		if near := nearest(args[0], names); near != "" {
			return f.withHint("did you mean `%s %s`?", cmd.CommandPath(), near)
		}
		return f
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// exclusive notes that two flags of cmd cannot be used together.
func exclusive(cmd *cobra.Command, a, b string) {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations["exclusive"] = a + " " + b
}

// args demands between len(names) and max arguments; names are those that must be there, in order.
func args(limit int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) < len(names):
			return usagef("%s: missing %s", cmd.CommandPath(), strings.Join(names[len(given):], " ")).
				withHint("usage: %s", cmd.UseLine())
		case limit == 0 && len(given) > 0:
			return usagef("%s takes no arguments", cmd.CommandPath()).withHint("usage: %s", cmd.UseLine())
		case limit >= 0 && len(given) > limit:
			return usagef("%s: %d arguments, at most %d", cmd.CommandPath(), len(given), limit).
				withHint("usage: %s", cmd.UseLine())
		}
		return nil
	}
}

// flagFailure explains a flag that cannot be parsed.
func flagFailure(cmd *cobra.Command, err error) error {
	f := usagef("%v", err).withHint("`%s --help` lists the flags", cmd.CommandPath())
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return f
	}
	short := unknown.GetSpecifiedShortnames() != ""
	switch {
	case strings.Contains(cmd.Use, "VALUE") && (short || !isWord(unknown.GetSpecifiedName())):
		// Perhaps it is the value, and a secret: it is not repeated.
		return usagef("unknown flag").withHint("a value that begins with - goes after --: %s PATH -- -VALUE", cmd.CommandPath())
	case short:
		return f
	}
	var names []string
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		if !flag.Hidden {
			names = append(names, flag.Name)
		}
	})
	if near := nearest(unknown.GetSpecifiedName(), names); near != "" {
		return f.withHint("did you mean --%s?", near)
	}
	return f
}

// isWord tells whether s could be meant as the name of a flag.
func isWord(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") == ""
}

// helpCmd is cobra's help command with our answer to an unknown name.
func helpCmd(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show help for a command",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, sub := range root.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, words []string) error {
			cmd, rest, err := root.Find(words)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return cmd.Args(cmd, rest)
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// json tells whether the user asked for output for programs.
func (c *cli) json() bool { return c.output == "json" }

// wantsJSON is json for errors that came before the flags were understood.
func (c *cli) wantsJSON(args []string) bool {
	if c.json() || os.Getenv("SYNCAGENT_OUTPUT") == "json" && c.output == "" {
		return true
	}
	for i, a := range args {
		switch a {
		case "--":
			return false
		case "-ojson", "-o=json", "--output=json":
			return true
		case "-o", "--output":
			if i+1 < len(args) && args[i+1] == "json" {
				return true
			}
		}
	}
	return false
}

// note tells the user something that is neither result nor error.
func (c *cli) note(format string, args ...any) {
	if !c.quiet {
		fmt.Fprintf(c.stderr, "syncagent: "+format+"\n", args...)
	}
}

// bounded gives ctx the time that short requests have.
func (c *cli) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	d := c.timeout
	if d == 0 {
		d = 30 * time.Second
	}
	return context.WithTimeout(ctx, d)
}

// streaming gives ctx the time that requests without an end have.
func (c *cli) streaming(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timeout)
}
