package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

const manpageHelp = `Write the manual pages into a directory that exists: syncagent.1, syncagent-put.1 and so on.
Packages bring them; after a plain build, with a MANPATH that has DIR/..:

  mkdir -p ~/.local/share/man/man1 && syncagent manpage ~/.local/share/man/man1

Their date is SOURCE_DATE_EPOCH if that is set, else today.`

func (c *cli) manpageCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "manpage DIR",
		Short: "Write the manual pages into a directory",
		Long:  manpageHelp,
		Args:  args(1, "DIR"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, words []string) error {
			date := time.Now()
			if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
				s, err := strconv.ParseInt(epoch, 10, 64)
				if err != nil {
					return usagef("environment SOURCE_DATE_EPOCH: %q is no number of seconds", epoch)
				}
				date = time.Unix(s, 0).UTC()
			}
			return writeManpages(cmd.Root(), words[0], date)
		},
	}
}

// writeManpages makes a page of every command.
func writeManpages(root *cobra.Command, dir string, date time.Time) error {
	for _, cmd := range commands(root) {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
		file, err := os.Create(filepath.Join(dir, name+".1"))
		if err != nil {
			return err
		}
		cmd.DisableAutoGenTag = true
		cmd.Long = asMarkdown(cmd.Long)
		header := &doc.GenManHeader{Title: strings.ToUpper(name), Section: "1", Date: &date, Source: "syncagent " + readBuildInfo().Version, Manual: "syncagent"}
		err = doc.GenMan(cmd, header, file)
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", file.Name(), err)
		}
	}
	return nil
}

// asMarkdown makes the text of a help the Markdown that the library expects: indented lines are examples, and nothing is
// emphasised.
func asMarkdown(help string) string {
	lines := strings.Split(help, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "  ") {
			lines[i] = "  " + line
			if i > 0 && lines[i-1] != "" && !strings.HasPrefix(lines[i-1], "  ") {
				lines[i] = "\n" + lines[i]
			}
		} else {
			lines[i] = strings.NewReplacer("*", `\*`, "<", `\<`).Replace(line)
		}
	}
	return strings.Join(lines, "\n")
}

// commands gives cmd and all that are offered below it, each after the one that holds it.
func commands(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			all = append(all, commands(sub)...)
		}
	}
	return all
}
