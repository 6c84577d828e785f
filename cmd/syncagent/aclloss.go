package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/acl"
	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// lossFlags say what is to happen with values that a new policy would take away.
type lossFlags struct{ keep, drop bool }

func (f *lossFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.keep, "keep", false, "keep the values that would be lost: name their versions in the text")
	cmd.Flags().BoolVar(&f.drop, "drop", false, "let values go that the text does not allow any more")
	exclusive(cmd, "keep", "drop")
}

// losses are live values that a policy would take away.
type losses struct {
	count, hidden int // hidden: at paths that this agent may not read
	examples      []string
	versions      []acl.Keep // at most one more than a policy can keep
}

func (l *losses) add(change *apiv1.PathChange) error {
	if change.GetLost() == "" {
		return nil
	}
	l.count++
	switch path := change.GetPath(); {
	case path == "":
		l.hidden++
	case len(l.examples) < 5:
		l.examples = append(l.examples, path)
	}
	if len(l.versions) > acl.MaxKeeps {
		return nil
	}
	v, _, err := record.ParseVersion(change.GetLost())
	l.versions = append(l.versions, acl.Keep{Version: v})
	return err
}

// previewPolicy calls fn for every path that a text would change on this agent.
func previewPolicy(ctx context.Context, client *agent.Client, text []byte, fn func(*apiv1.PathChange) error) error {
	stream, err := client.Policy.Preview(ctx, connect.NewRequest(&apiv1.PreviewRequest{Text: text}))
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // its error is stream.Err
	for stream.Receive() {
		for _, change := range stream.Msg().GetChanges() {
			if err := fn(change); err != nil {
				return err
			}
		}
	}
	return stream.Err()
}

// guardLoss refuses a text under which live values would be lost, or gives it with lines that keep them.
func (c *cli) guardLoss(ctx context.Context, client *agent.Client, text []byte, flags lossFlags) ([]byte, error) {
	if flags.drop {
		return text, nil
	}
	var lost losses
	if err := previewPolicy(ctx, client, text, lost.add); err != nil {
		return nil, err
	}
	switch {
	case lost.count == 0:
		return text, nil
	case !flags.keep:
		return nil, failf(exitPrecondition, "would_lose", "%s", lost).
			withHint("--keep keeps them as they are, --drop lets them go; `syncagent acl diff FILE` lists them")
	}
	kept, err := acl.AddKeeps(text, lost.versions)
	if errors.Is(err, acl.ErrTooManyKeeps) {
		return nil, tooManyKeeps(fmt.Errorf("%w: %d values would be lost", acl.ErrTooManyKeeps, lost.count))
	}
	if err == nil {
		c.note("%d values are kept by their versions", lost.count)
	}
	return kept, err
}

func (l losses) String() string {
	text := fmt.Sprintf("this would lose %d live values", l.count)
	if l.count == 1 {
		text = "this would lose 1 live value"
	}
	if len(l.examples) > 0 {
		slices.Sort(l.examples)
		text += ": " + strings.Join(l.examples, ", ")
	}
	if rest := l.count - l.hidden - len(l.examples); rest > 0 {
		text += fmt.Sprintf(" and %d more", rest)
	}
	if l.hidden > 0 {
		text += fmt.Sprintf("; %d at paths that this agent may not read", l.hidden)
	}
	return text
}

func tooManyKeeps(err error) *failure {
	return failf(exitUsage, string(agent.CodeTooLarge), "%w", err).
		withHint("a version without its index keeps all of its write; or have a trusted identity write the values again\n" +
			"before the policy changes: `syncagent mirror PREFIX DIR --once`, look at them, `syncagent import DIR PREFIX` there")
}
