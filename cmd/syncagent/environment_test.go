package main

import (
	"io"
	"testing"

	"github.com/spf13/pflag"

	"syncagent/agent"
)

// TestEveryFlagComesFromTheEnvironment holds that each flag of each command has a variable that sets it, and that no
// variable means two things.
func TestEveryFlagComesFromTheEnvironment(t *testing.T) {
	samples := map[string]string{"bool": "true", "float64": "0.7", "duration": "7s", "int": "7", "int32": "7", "uint32": "7", "string": "s", "stringArray": "s", "stringSlice": "s"}
	newRoot := func() *cli { return &cli{stdin: &input{}, stdout: &output{w: io.Discard}, stderr: io.Discard} }
	meaning := map[string]*pflag.Flag{}
	for _, key := range agent.SettingKeys() {
		meaning[agent.EnvName(key)] = nil
	}
	for i, cmd := range commands(newRoot().rootCmd()) {
		check := func(f *pflag.Flag) {
			if f.Name == "help" {
				return
			}
			name := envName(cmd, f)
			if other, ok := meaning[name]; ok && other != f {
				t.Errorf("%s of %s --%s means something else, too", name, cmd.CommandPath(), f.Name)
			}
			meaning[name] = f
			sample, ok := samples[f.Value.Type()]
			if !ok {
				t.Fatalf("%s --%s: no sample of %s", cmd.CommandPath(), f.Name, f.Value.Type())
			}
			t.Setenv(name, sample)
			fresh := commands(newRoot().rootCmd())[i]
			if err := fresh.ParseFlags(nil); err != nil {
				t.Fatal(err)
			}
			if err := fromEnvironment(fresh); err != nil || !fresh.Flags().Changed(f.Name) {
				t.Errorf("%s does not set %s --%s: %v", name, cmd.CommandPath(), f.Name, err)
			}
		}
		_ = cmd.ParseFlags(nil) // adds the global flags
		cmd.Flags().VisitAll(check)
	}
	if len(meaning) < 100 {
		t.Errorf("only %d variables were found", len(meaning))
	}
}
