package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/acl"
	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
)

func (c *cli) aclTestCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "test [FILE]",
		Short: "Run the test lines of a policy text, or of the policy in force",
		Long: "Run the `test allow` and `test deny` lines of a policy text, signed or not, or without\n" +
			"FILE those of the policy in force on the agent.",
		Args: args(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			name, exit := "policy in force", exitError
			var text []byte
			var err error
			if len(words) > 0 {
				name, exit = words[0], exitUsage
				text, err = readFile("policy", name, maxPolicyFile)
			} else {
				text, err = c.textInForce(cmd.Context())
			}
			if err != nil {
				return err
			}
			file, err := checkPolicy(name, text)
			if f, ok := err.(*failure); ok { //nolint:errorlint // checkPolicy wraps nothing around it
				f.exit = exit
			}
			if err != nil {
				return err
			}
			if c.json() {
				printJSON(c.stdout, map[string]any{"ok": true, "tests": len(file.Tests)})
			} else if !c.quiet {
				fmt.Fprintf(c.stdout, "%s: %d tests hold\n", name, len(file.Tests))
			}
			return nil
		},
	}
}

func (c *cli) textInForce(ctx context.Context) ([]byte, error) {
	client, err := c.dial()
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	now, err := mustShowPolicy(ctx, client)
	if err != nil {
		return nil, err
	}
	return now.Text, nil
}

func (c *cli) aclDiffCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "diff FILE",
		Short: "Tell what a policy text would change: rights, and paths that would show something else",
		Long: "Compare a policy text with the one in force: rights that come (+) and go (-) by identity and\n" +
			"prefix, rights that stay (=) below a prefix where they go, and the paths that would show\n" +
			"another version (~) or lose their value (!) on this agent.",
		Args: args(1, "FILE"),
		RunE: func(cmd *cobra.Command, words []string) error {
			text, err := readFile("policy", words[0], maxPolicyFile)
			if err != nil {
				return err
			}
			return c.diffPolicy(cmd.Context(), words[0], text)
		},
	}
}

func (c *cli) diffPolicy(ctx context.Context, name string, text []byte) error {
	file, err := checkPolicy(name, text)
	if err != nil {
		return err
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	texts, err := keptTexts(ctx, client)
	if err != nil {
		return err
	}
	now := acl.Effective(texts)
	if now == nil {
		return errNoPolicy()
	}
	network := now.Network
	before := acl.Compile(network, now, texts)
	after := acl.Compile(network, &acl.Signed{File: file, Network: network}, texts)
	for _, change := range acl.Diff(before, after) {
		c.printRight(change)
	}
	var changes []*apiv1.PathChange
	err = previewPolicy(ctx, client, text, func(change *apiv1.PathChange) error {
		changes = append(changes, change)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(changes, func(a, b *apiv1.PathChange) int { return cmp.Compare(a.GetPath(), b.GetPath()) })
	lost := 0
	for _, change := range changes {
		if change.GetLost() != "" {
			lost++
		}
		c.printPathChange(change)
	}
	c.note("%d paths would change here, %d of them would lose their value", len(changes), lost)
	return nil
}

func (c *cli) printRight(change acl.RightChange) {
	for _, kind := range []struct {
		sign, name string
		op         acl.Op
	}{{"+", "gained", change.Gained}, {"-", "lost", change.Lost}, {"=", "kept", change.Kept}} {
		switch {
		case kind.op == 0:
		case c.json():
			printJSON(c.stdout, map[string]string{"type": kind.name, "subject": change.Subject, "path": change.Path, "operation": kind.op.String()})
		default:
			fmt.Fprintf(c.stdout, "%s %s\n", kind.sign, strings.Join(strings.Fields(change.Subject+" "+change.Path+" "+kind.op.String()), " "))
		}
	}
}

func (c *cli) printPathChange(change *apiv1.PathChange) {
	path := change.GetPath()
	if c.json() {
		printJSON(c.stdout, map[string]any{
			"type": "path", "path": path, "now": change.GetNow().GetVersion(), "then": change.GetThen().GetVersion(), "lost": change.GetLost(),
		})
		return
	}
	if path == "" {
		path = "(a path that this agent may not read)"
	}
	sign := "~"
	if change.GetLost() != "" {
		sign = "!"
	}
	fmt.Fprintf(c.stdout, "%s %s  %s -> %s\n", sign, path, versionLine(change.GetNow()), versionLine(change.GetThen()))
}

// versionLine says who wrote what a path shows, and when.
func versionLine(e *apiv1.Entry) string {
	if e == nil {
		return "nothing"
	}
	return authorOf(e) + " " + timeOf(e.GetHlc())
}

// keptTexts gives the texts that the agent keeps.
func keptTexts(ctx context.Context, client *agent.Client) ([]*acl.Signed, error) {
	r, err := client.Policy.Log(ctx, connect.NewRequest(&apiv1.LogRequest{}))
	if err != nil {
		return nil, err
	}
	var texts []*acl.Signed
	for _, t := range r.Msg.GetTexts() {
		signed, err := acl.ParseSigned(t.GetSigned())
		if err != nil {
			return nil, fmt.Errorf("policy with serial %d: %w", t.GetSerial(), err)
		}
		texts = append(texts, signed)
	}
	return texts, nil
}

func (c *cli) aclLogCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "log",
		Short: "List the policy texts that the agent keeps, the one in force first",
		Long: "List the policy texts that the agent keeps: the one in force, the last ten, and all that\n" +
			"revoke keys, which count for ever, each with the time at which it came here. `syncagent acl show SERIAL` prints one.",
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			r, err := client.Policy.Log(ctx, connect.NewRequest(&apiv1.LogRequest{}))
			if err != nil {
				return err
			}
			c.printLog(r.Msg.GetTexts())
			return nil
		},
	}
}

func (c *cli) printLog(texts []*apiv1.PolicyText) {
	var rows [][]string
	for _, t := range texts {
		if c.json() {
			line := map[string]any{
				"serial": t.GetSerial(), "hash": t.GetHash(), "signers": t.GetSigners(), "in_force": t.GetInForce(), "revokes": t.GetRevokes(),
			}
			if t.GetTaken() != nil {
				line["taken"] = t.GetTaken().AsTime().Format(time.RFC3339)
			}
			printJSON(c.stdout, line)
			continue
		}
		state, taken := "", "-"
		if t.GetTaken() != nil {
			taken = t.GetTaken().AsTime().Local().Format(time.DateTime)
		}
		if t.GetInForce() {
			state = "in force"
		}
		var signers []string
		for _, s := range t.GetSigners() {
			signers = append(signers, "…"+s[max(0, len(s)-8):])
		}
		rows = append(rows, []string{
			fmt.Sprint(t.GetSerial()), taken, t.GetHash()[:min(12, len(t.GetHash()))], strings.Join(signers, " "), fmt.Sprint(t.GetRevokes()), state,
		})
	}
	if !c.json() {
		table(c.stdout, []string{"SERIAL", "TAKEN", "HASH", "SIGNED BY", "REVOKES", ""}, rows)
	}
}

// chooseText gives the text that the agent has under a serial or the beginning of a hash; without a word the one in
// force.
func chooseText(ctx context.Context, client *agent.Client, words []string) (*apiv1.PolicyText, error) {
	r, err := client.Policy.Log(ctx, connect.NewRequest(&apiv1.LogRequest{}))
	if err != nil {
		return nil, err
	}
	var found []*apiv1.PolicyText
	for _, t := range r.Msg.GetTexts() {
		if len(words) == 0 && t.GetInForce() ||
			len(words) > 0 && (fmt.Sprint(t.GetSerial()) == words[0] || len(words[0]) >= 12 && strings.HasPrefix(t.GetHash(), words[0])) {
			found = append(found, t)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, usagef("%d policies have serial %s", len(found), words[0]).withHint("name one by its hash: `syncagent acl log`")
	case len(words) == 0:
		return nil, errNoPolicy()
	}
	return nil, failf(exitNotFound, string(agent.CodeNotFound), "no policy %s is kept", words[0]).withHint("`syncagent acl log` lists them")
}

func (c *cli) aclRevertCmd() *cobra.Command {
	var keyFile string
	var loss lossFlags
	cmd := &cobra.Command{
		Use:   "revert SERIAL",
		Short: "Put an earlier policy text in force again, under a new serial",
		Long: "Put an earlier policy text in force again, under a new serial. `syncagent acl log` lists\n" +
			"them. Keys that any text revoked stay revoked. As with apply, nothing live is lost\n" +
			"unless --drop says so.",
		Args: args(1, "SERIAL"),
		RunE: func(cmd *cobra.Command, words []string) error {
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			old, err := chooseText(ctx, client, words)
			if err != nil {
				return err
			}
			if old.GetInForce() {
				c.note("nothing to change")
				return nil
			}
			return c.applyPolicy(cmd.Context(), keyFile, loss, func(b base) ([]byte, error) {
				return b.keepFormer(acl.Unsigned(old.GetSigned()))
			})
		},
	}
	cmd.Flags().StringVar(&keyFile, "admin-key", "", "sign with the key in `FILE`")
	loss.add(cmd)
	return cmd
}
