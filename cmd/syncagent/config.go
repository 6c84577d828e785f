package main

import (
	"fmt"
	"io"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"syncagent/agent"
)

// loadConfig reads the configuration that --config or its defaults name.
func (c *cli) loadConfig(overrides map[string]string) (agent.Config, error) {
	return agent.LoadConfig(agent.FindConfig(c.configFile), overrides)
}

func (c *cli) configCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check or show the configuration"}
	group(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Tell every fault of the configuration at once",
		Long:  configCheckHelp,
		Args:  args(0),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.loadConfig(nil)
			if err == nil {
				err = cfg.CheckTriggerFiles()
			}
			if err != nil {
				return err
			}
			if c.json() {
				printJSON(c.stdout, map[string]any{"file": cfg.File, "ok": true})
			} else if !c.quiet {
				fmt.Fprintf(c.stdout, "%s: ok\n", cfg.File)
			}
			return nil
		},
	}, c.configShowCmd())
	return cmd
}

const configCheckHelp = `Tell every fault of the configuration at once. The files of triggers_dir are read too, as
the user who runs this; the agent leaves faulty ones out, with an alarm.`

const configShowHelp = `Print the settings in force: environment over file over defaults. The environment is that
of this command; the agent may have been started with another.

With --origin every setting stands on a line of its own, with what set it: a line of the
file, a variable, or nothing but the default.`

func (c *cli) configShowCmd() *cobra.Command {
	var origin bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the settings in force, and what set them",
		Long:  configShowHelp,
		Args:  args(0),
		RunE: func(*cobra.Command, []string) error {
			if origin {
				return c.showOrigins()
			}
			cfg, err := c.loadConfig(nil)
			if err != nil {
				return err
			}
			text, err := yaml.MarshalWithOptions(cfg, c.yamlOptions()...)
			if err != nil {
				return fmt.Errorf("show configuration: %w", err)
			}
			if !c.json() {
				fmt.Fprintf(c.stdout, "# %s\n", cfg.File)
			}
			_, err = c.stdout.Write(text)
			return err
		},
	}
	cmd.Flags().BoolVar(&origin, "origin", false, "tell of every setting what set it")
	return cmd
}

// settingJSON is one line of config show --origin for programs.
type settingJSON struct {
	Key    string `json:"key"`
	Value  string `json:"value"` // as YAML
	Origin string `json:"origin"`
}

func (c *cli) showOrigins() error {
	settings, err := agent.LoadSettings(agent.FindConfig(c.configFile))
	if err != nil {
		return err
	}
	if !c.json() {
		printSettings(c.stdout, settings)
		return nil
	}
	for _, s := range settings {
		printJSON(c.stdout, settingJSON(s))
	}
	return nil
}

func printSettings(w io.Writer, settings []agent.Setting) {
	var rows [][]string
	for _, s := range settings {
		rows = append(rows, []string{s.Key, s.Value, s.Origin})
	}
	table(w, []string{"SETTING", "VALUE", "SET BY"}, rows)
}

func (c *cli) yamlOptions() []yaml.EncodeOption {
	if c.json() {
		return []yaml.EncodeOption{yaml.JSON()}
	}
	return []yaml.EncodeOption{yaml.IndentSequence(true)}
}
