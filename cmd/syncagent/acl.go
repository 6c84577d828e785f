package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"syncagent/acl"
	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

// maxPolicyFile bounds a policy text with its signatures, in bytes.
const maxPolicyFile = acl.MaxText + 64<<10

// defaultGroup is the group that the first policy of a network has, and that admit uses unless told otherwise.
const defaultGroup = "@hosts"

func (c *cli) aclCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "acl", Short: "Show, check and change the policy: who may read and write what"}
	group(cmd)
	cmd.AddCommand(c.aclShowCmd(), c.aclCheckCmd(), c.aclTestCmd(), c.aclDiffCmd(), c.aclApplyCmd(), c.aclAdmitCmd(),
		c.aclRevokeCmd(), c.aclRetireCmd(), c.aclLogCmd(), c.aclRevertCmd(), c.aclImportCmd())
	return cmd
}

func (c *cli) aclShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "show [SERIAL]",
		Short: "Print the policy in force on this agent, with its signatures",
		Long:  "Print the policy in force on this agent, with its signatures, or another text that it keeps:\n`syncagent acl log` lists them.",
		Args:  args(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			client, err := c.dial()
			if err != nil {
				return err
			}
			ctx, cancel := c.bounded(cmd.Context())
			defer cancel()
			text, err := chooseText(ctx, client, words)
			if err != nil {
				return err
			}
			if c.json() {
				printJSON(c.stdout, map[string]any{"serial": text.GetSerial(), "hash": text.GetHash(), "text": string(text.GetSigned())})
				return nil
			}
			_, err = c.stdout.Write(text.GetSigned())
			return err
		},
	}
}

func (c *cli) aclCheckCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a policy text: faults, its own tests, and what it probably does not mean",
		Long:  "Check a policy text, signed or not: tell all its faults with line and column, run its\n`test allow` and `test deny` lines, and warn about what it probably does not mean.",
		Args:  args(1, "FILE"),
		RunE: func(_ *cobra.Command, words []string) error {
			text, err := readFile("policy", words[0], maxPolicyFile)
			if err != nil {
				return err
			}
			file, err := checkPolicy(words[0], text)
			if err != nil {
				return err
			}
			warnings := acl.Lint(file)
			for _, w := range warnings {
				fmt.Fprintf(c.stderr, "syncagent: warning: %s: %s\n", words[0], w)
			}
			switch {
			case c.json():
				printJSON(c.stdout, map[string]any{
					"ok": true, "serial": file.Serial, "identities": len(file.Identities), "rules": len(file.Rules), "warnings": len(warnings),
				})
			case !c.quiet:
				fmt.Fprintf(c.stdout, "%s: ok, %d identities, %d rules, %d tests\n", words[0], len(file.Identities), len(file.Rules), len(file.Tests))
			}
			return nil
		},
	}
}

// checkPolicy parses a text and runs its tests. The error tells all faults, one a line.
func checkPolicy(name string, text []byte) (*acl.File, error) {
	file, err := acl.Parse(acl.Unsigned(text))
	var faults []string
	var syntax acl.SyntaxErrors
	switch {
	case errors.As(err, &syntax):
		for _, e := range syntax {
			faults = append(faults, e.Error())
		}
	case err != nil:
		return nil, failf(exitUsage, string(agent.CodeBadPolicy), "%s: %w", name, err)
	default:
		for _, f := range acl.CompileFile(file.Network, file).RunTests() {
			faults = append(faults, f.String())
		}
	}
	switch len(faults) {
	case 0:
		return file, nil
	case 1:
		return nil, failf(exitUsage, string(agent.CodeBadPolicy), "%s: %s", name, faults[0])
	}
	return nil, failf(exitUsage, string(agent.CodeBadPolicy), "%s: %d faults\n  %s", name, len(faults), strings.Join(faults, "\n  "))
}

func (c *cli) aclApplyCmd() *cobra.Command {
	var keyFile string
	var loss lossFlags
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Sign a policy text and put it in force",
		Long: "Check a policy text, sign it with the admin key, hand it to the agent and wait until it\n" +
			"is in force there; the agents pass it on. Network and serial are filled in; a text that\n" +
			"`acl show` gave, and that is not in force any more, is refused with exit code 6, as\n" +
			"another change would be lost, and so is a serial line of your own that is not higher.\n" +
			"So is a text under which values would be lost that are live now, because it no longer\n" +
			"lets their authors write there: --keep adds lines that keep them, --drop lets them go.\n" +
			"Keys that the text no longer names are noted in it as former.",
		Args: args(1, "FILE"),
		RunE: func(cmd *cobra.Command, words []string) error {
			text, err := readFile("policy", words[0], maxPolicyFile)
			if err != nil {
				return err
			}
			return c.applyPolicy(cmd.Context(), keyFile, loss, func(b base) ([]byte, error) {
				return prepareText(words[0], text, b)
			})
		},
	}
	cmd.Flags().StringVar(&keyFile, "admin-key", "", "sign with the key in `FILE`")
	loss.add(cmd)
	return cmd
}

// base is what a new policy text is made from.
type base struct {
	network record.NetworkID
	now     *acl.Signed // in force; nil: none
	last    *acl.Signed // now, or where none is in force the highest that was; nil: none
}

// prepareText checks a text and adds what it leaves out of the one before.
func prepareText(name string, text []byte, b base) ([]byte, error) {
	file, err := checkPolicy(name, text)
	if err != nil {
		return nil, err
	}
	if file.Network != (record.NetworkID{}) && file.Network != b.network {
		return nil, failf(exitError, "wrong_network", "%s is for network %s, this is %s", name, file.Network, b.network).
			withHint("remove its network line")
	}
	if b.last != nil && file.Serial > 0 && file.Serial <= b.last.Serial && !madeFrom(text, b.last) {
		return nil, failf(exitPrecondition, string(agent.CodePrecondition), "%s has serial %d, in force is another text with serial %d", name, file.Serial, b.last.Serial).
			withHint("edit what `syncagent acl show` gives, so that no change of others is lost; without its serial line a text replaces any")
	}
	return b.keepFormer(acl.Unsigned(text))
}

// madeFrom tells whether a text is an edited copy of a signed one: what others signed since would be lost by a copy of an
// older one.
func madeFrom(text []byte, of *acl.Signed) bool {
	return bytes.Contains(text, of.Encode()[len(of.Text):]) // its signatures, which nothing else has
}

// keepFormer adds the keys that the text before names and this one does not.
func (b base) keepFormer(text []byte) ([]byte, error) {
	if b.last == nil {
		return text, nil
	}
	return acl.KeepFormer(text, b.last.File)
}

// finish fills in the network, and the next serial unless the text has a higher one.
func (b base) finish(text []byte) ([]byte, error) {
	file, err := acl.Parse(text)
	if err != nil {
		return nil, err
	}
	next := uint64(1)
	if b.last != nil {
		next = b.last.Serial + 1
	}
	return acl.SetHeader(text, b.network, max(file.Serial, next)), nil
}

func (c *cli) aclAdmitCmd() *cobra.Command {
	var keyFile, into string
	cmd := &cobra.Command{
		Use:   "admit LINE",
		Short: "Admit a host: add the line that `syncagent join` printed there to the policy",
		Long: "Add the line that `syncagent join` printed (identity NAME PEERID) to the policy in force,\n" +
			"put the name into a group, sign the text with the admin key and apply it. What is\n" +
			"there already is not added again.",
		Example: "  syncagent acl admit 'identity web2 12D3KooW...'",
		Args:    args(3, "LINE"),
		RunE: func(cmd *cobra.Command, words []string) error {
			line := strings.Join(words, " ")
			if _, err := acl.ParseIdentity(line); err != nil {
				return usagef("%v", err).withHint("LINE is what `syncagent join` printed: identity NAME PEERID")
			}
			given := cmd.Flags().Changed("group")
			// A host that comes takes nothing from anybody.
			return c.applyPolicy(cmd.Context(), keyFile, lossFlags{drop: true}, func(b base) ([]byte, error) {
				return c.admitText(b.now, line, into, given)
			})
		},
	}
	cmd.Flags().StringVar(&into, "group", defaultGroup, "`@NAME` of the group to put it into")
	cmd.Flags().StringVar(&keyFile, "admin-key", "", "sign with the key in `FILE`")
	return cmd
}

// admitText adds the identity to the text in force. Nil: it is there already.
func (c *cli) admitText(now *acl.Signed, line, into string, given bool) ([]byte, error) {
	if now == nil {
		return nil, errNoPolicy()
	}
	if !given && !now.File.HasGroup(into) {
		c.note("the policy has no group %s: the host gets no rights but those of *; --group names one", into)
		into = ""
	}
	text, err := acl.Admit(now.Text, line, into)
	if err != nil {
		return nil, usagef("%v", err)
	}
	if string(text) == string(now.Text) {
		return nil, nil
	}
	if _, err := checkPolicy("policy", text); err != nil {
		return nil, err
	}
	return text, nil
}

// applyPolicy lets edit make a new text, signs it, and returns when it is in force on the agent. No text from edit:
// nothing to do. A text under which live values would be lost is refused unless loss says otherwise.
func (c *cli) applyPolicy(ctx context.Context, keyFile string, loss lossFlags, edit func(base) ([]byte, error)) error {
	cfg, err := c.loadNetworkConfig()
	if err != nil {
		return err
	}
	var b base
	if b.network, err = record.ParseNetworkID(cfg.Network); err != nil {
		return err
	}
	key, err := adminKey(cfg, keyFile)
	if err != nil {
		return err
	}
	client, err := c.dial()
	if err != nil {
		return err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if b.now, err = showPolicy(ctx, client); err != nil {
		return err
	}
	if b.last = b.now; b.now == nil {
		texts, err := keptTexts(ctx, client)
		if err != nil {
			return err
		}
		b.last = acl.Effective(texts)
	}
	text, err := edit(b)
	if err != nil {
		return err
	}
	if text == nil {
		c.note("nothing to change")
		return nil
	}
	if text, err = b.finish(text); err != nil {
		return err
	}
	if text, err = c.guardLoss(ctx, client, text, loss); err != nil {
		return err
	}
	signed := acl.Sign(text, b.network, key)
	r, err := client.Policy.Apply(ctx, connect.NewRequest(&apiv1.ApplyRequest{Signed: signed}))
	if err != nil {
		return err
	}
	if err := writeFile(cfg.PolicyFile(), signed, 0o644); err != nil {
		c.note("the policy is in force, but its copy could not be kept: %v", err)
	}
	if c.json() {
		printJSON(c.stdout, map[string]any{"serial": r.Msg.GetSerial(), "hash": r.Msg.GetHash()})
	} else {
		c.note("policy with serial %d is in force here", r.Msg.GetSerial())
	}
	return nil
}

// showPolicy asks for the text in force. Nil: there is none.
func showPolicy(ctx context.Context, client *agent.Client) (*acl.Signed, error) {
	r, err := client.Policy.Show(ctx, connect.NewRequest(&apiv1.ShowRequest{}))
	if e := agent.ErrorOf(err); e != nil {
		if e.Code == agent.CodeNoPolicy {
			return nil, nil
		}
		return nil, err
	}
	return acl.ParseSigned(r.Msg.GetSigned())
}

// mustShowPolicy is showPolicy where there must be one.
func mustShowPolicy(ctx context.Context, client *agent.Client) (*acl.Signed, error) {
	now, err := showPolicy(ctx, client)
	if err == nil && now == nil {
		err = errNoPolicy()
	}
	return now, err
}

func errNoPolicy() *failure {
	return failf(exitDenied, string(agent.CodeNoPolicy), "the agent has no policy yet").
		withHint("`syncagent acl apply FILE` puts one in force")
}
