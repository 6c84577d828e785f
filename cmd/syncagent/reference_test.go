package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"syncagent/configs"
)

var update = flag.Bool("update", false, "write docs/reference.md anew")

// TestReference holds that docs/reference.md is what the program says of itself.
func TestReference(t *testing.T) {
	const file = "../../docs/reference.md"
	want := reference()
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/reference.md is not up to date: go test ./cmd/syncagent -run TestReference -update")
	}
}

// reference is the help of every command, and the example configuration.
func reference() []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, `# Reference

Made from the program by a test; edit its help texts and configs/syncagent.yaml instead. [api.md](api.md) has the API.

- [Commands](#commands)
- [Configuration](#configuration)

## Commands

`)
	c := &cli{stdin: &input{}, stdout: &output{w: io.Discard}, stderr: io.Discard}
	root := c.rootCmd()
	for _, cmd := range commands(root) {
		cmd.InitDefaultHelpFlag()
		cmd.Flags().Lookup("help").Hidden = true
		if cmd != root {
			fmt.Fprintf(&b, "### %s\n\n", cmd.CommandPath())
		}
		text := cmd.Long
		if text == "" {
			text = cmd.Short + "."
		}
		fmt.Fprintf(&b, "```\n%s\n\nusage: %s\n", text, cmd.UseLine())
		if cmd.HasExample() {
			fmt.Fprintf(&b, "\nexamples:\n%s\n", strings.TrimRight(cmd.Example, "\n"))
		}
		if flags := cmd.LocalFlags(); flags.HasAvailableFlags() {
			fmt.Fprintf(&b, "\nflags:\n%s", flags.FlagUsages())
		}
		fmt.Fprint(&b, "```\n\n")
	}
	fmt.Fprintf(&b, "## Configuration\n\nAs installed in /etc/syncagent/syncagent.yaml.\n\n```yaml\n%s```\n", configs.Example)
	return b.Bytes()
}
