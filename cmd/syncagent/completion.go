package main

import (
	"github.com/spf13/cobra"
)

const completionHelp = `Print a completion script for a shell.

  bash         source <(syncagent completion bash)
  zsh          syncagent completion zsh > "${fpath[1]}/_syncagent"
  fish         syncagent completion fish > ~/.config/fish/completions/syncagent.fish
  powershell   syncagent completion powershell | Out-String | Invoke-Expression

Paths are completed from the running agent.`

func (c *cli) completionCmd() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:       "completion SHELL",
		Short:     "Print a completion script for bash, zsh, fish or powershell",
		Long:      completionHelp,
		Args:      args(1, "SHELL"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, words []string) error {
			root := cmd.Root()
			switch words[0] {
			case "bash":
				return root.GenBashCompletionV2(c.stdout, true)
			case "zsh":
				return root.GenZshCompletion(c.stdout)
			case "fish":
				return root.GenFishCompletion(c.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(c.stdout)
			}
			f := usagef("unknown shell %q: bash, zsh, fish or powershell", words[0])
			if near := nearest(words[0], shells); near != "" {
				return f.withHint("did you mean `syncagent completion %s`?", near)
			}
			return f
		},
	}
}
