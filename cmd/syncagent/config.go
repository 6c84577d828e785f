package main

import (
	"fmt"

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
		Args:  args(0),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.loadConfig(nil)
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
	}, &cobra.Command{
		Use:   "show",
		Short: "Print the settings in force: environment over file over defaults",
		Args:  args(0),
		RunE: func(*cobra.Command, []string) error {
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
	})
	return cmd
}

func (c *cli) yamlOptions() []yaml.EncodeOption {
	if c.json() {
		return []yaml.EncodeOption{yaml.JSON()}
	}
	return []yaml.EncodeOption{yaml.IndentSequence(true)}
}
