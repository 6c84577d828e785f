package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore/record"
)

const batchHelp = `Make many changes as one atomic write: every agent sees all of them or none.

Each line of FILE (default: standard input) is one JSON object:

  {"op":"put","path":"/a","value":"text"}
  {"op":"put","path":"/b","value_base64":"AAEC","mode":"0600","ttl":"12h"}
  {"op":"delete","path":"/c"}

"if_version":"V" and, for a put, "if_absent":true as in put and rm: if one of them does
not hold on this agent, nothing is written. At most 1,024 lines and 16 MiB. A bad line is
named by its number, and nothing is written.`

const (
	maxBatchLine  = 2 << 20  // bytes; the largest value with every byte escaped
	maxBatchTotal = 16 << 20 // bytes of paths and values
)

func (c *cli) batchCmd() *cobra.Command {
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "batch [FILE|-]",
		Short: "Make many changes as one atomic write",
		Long:  batchHelp,
		Args:  args(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			waiter, err := wait.parse(c)
			if err != nil {
				return err
			}
			ops, err := c.readBatch(words)
			if err != nil {
				return err
			}
			client, err := c.dial()
			if err != nil {
				return err
			}
			if err := waiter.check(cmd.Context(), client); err != nil {
				return err
			}
			w, err := c.writeBatch(cmd.Context(), client, ops)
			if err != nil {
				return err
			}
			if c.json() {
				c.printWrite(w, "")
			} else {
				fmt.Fprintf(c.stdout, "%s %d paths\n", w.GetVersion(), w.GetPaths())
			}
			return waiter.await(cmd.Context(), client, writeOf(w, ops))
		},
	}
	c.addKeyFlag(cmd)
	wait.add(cmd)
	return cmd
}

func (c *cli) readBatch(words []string) ([]*apiv1.Op, error) {
	if len(words) == 0 || words[0] == "-" {
		return parseBatch(c.stdin)
	}
	f, err := os.Open(words[0])
	if err != nil {
		return nil, fileFailure("batch file", words[0], err)
	}
	defer f.Close() //nolint:errcheck // read only
	return parseBatch(f)
}

// parseBatch reads all lines before anything is sent. Errors name the line.
func parseBatch(r io.Reader) ([]*apiv1.Op, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxBatchLine)
	var ops []*apiv1.Op
	first := map[string]int{} // path -> line
	total := 0
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		op, path, size, err := parseBatchLine(line)
		switch at, twice := first[path]; {
		case err != nil:
			f := classify(context.Background(), err)
			f.message = fmt.Sprintf("line %d: %s", n, f.message)
			return nil, f
		case twice:
			return nil, usagef("line %d: path %s is on line %d already", n, path, at)
		case len(ops) == record.MaxSlots:
			return nil, failf(exitUsage, string(agent.CodeTooLarge), "line %d: more than %d changes", n, record.MaxSlots)
		}
		if total += size; total > maxBatchTotal {
			return nil, failf(exitUsage, string(agent.CodeTooLarge), "line %d: more than %d bytes in all", n, maxBatchTotal)
		}
		first[path] = n
		ops = append(ops, op)
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, failf(exitUsage, string(agent.CodeTooLarge), "a line of more than %d bytes", maxBatchLine)
	case err != nil:
		return nil, fmt.Errorf("read batch: %w", err)
	case len(ops) == 0:
		return nil, usagef("an empty batch").withHint("one JSON object a line, see `syncagent batch --help`")
	}
	return ops, nil
}

// batchLine is one change. Pointers tell what is absent from what is empty.
type batchLine struct {
	Op          string  `json:"op"`
	Path        string  `json:"path"`
	Value       *string `json:"value"`
	ValueBase64 []byte  `json:"value_base64"`
	Mode        string  `json:"mode"`
	TTL         string  `json:"ttl"`
	IfVersion   string  `json:"if_version"`
	IfAbsent    bool    `json:"if_absent"`
}

func parseBatchLine(line []byte) (op *apiv1.Op, path string, size int, err error) {
	var l batchLine
	if err := decodeStrictly(line, &l); err != nil {
		return nil, "", 0, err
	}
	if err := record.CheckPath(l.Path); err != nil {
		return nil, "", 0, err
	}
	switch l.Op {
	case "put":
		r, err := l.put()
		return &apiv1.Op{Op: &apiv1.Op_Put{Put: r}}, l.Path, len(l.Path) + len(r.GetValue()), err
	case "delete":
		if l.Value != nil || l.ValueBase64 != nil || l.Mode != "" || l.TTL != "" || l.IfAbsent {
			return nil, "", 0, usagef("a delete has no value, mode, ttl or if_absent")
		}
		op := deleteOp(l.Path)
		op.GetDelete().IfVersion = l.IfVersion
		return op, l.Path, len(l.Path), nil
	}
	return nil, "", 0, usagef(`"op": want put or delete, not %q`, l.Op)
}

func (l *batchLine) put() (*apiv1.PutRequest, error) {
	r := &apiv1.PutRequest{Path: l.Path, IfVersion: l.IfVersion, IfAbsent: l.IfAbsent}
	switch {
	case l.IfVersion != "" && l.IfAbsent:
		return nil, usagef("if_version and if_absent exclude each other")
	case l.Value != nil && l.ValueBase64 != nil:
		return nil, usagef("value and value_base64 exclude each other")
	case l.Value != nil:
		r.Value = []byte(*l.Value)
	case l.ValueBase64 != nil:
		r.Value = l.ValueBase64
	default:
		return nil, usagef("a put needs value or value_base64")
	}
	if len(r.Value) > record.MaxInlineValue {
		return nil, tooLarge("value", record.MaxInlineValue).withHint("syncagent put writes a larger one by itself")
	}
	var err error
	if r.Mode, err = parseMode(l.Mode); err != nil {
		return nil, err
	}
	return r, setTTL(r, l.TTL)
}

// decodeStrictly reads one JSON object and refuses what encoding/json would silently change: unknown fields, anything
// after the object, and text that is not valid Unicode, of which it would keep replacement characters.
func decodeStrictly(line []byte, to *batchLine) error {
	if !utf8.Valid(line) {
		return usagef("not valid UTF-8").withHint("values that are no text go into value_base64")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return explainJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return usagef("more than one JSON object")
	}
	if to.Value != nil && strings.ContainsRune(*to.Value, utf8.RuneError) &&
		!bytes.ContainsRune(line, utf8.RuneError) && !bytes.Contains(bytes.ToLower(line), []byte(`\ufffd`)) {
		return usagef("a \\u escape that stands for no character").withHint("values that are no text go into value_base64")
	}
	return nil
}

// explainJSON says what is wrong with a line without repeating anything of it: it may hold a secret.
func explainJSON(err error) *failure {
	var wrong *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrong):
		kind, _, _ := strings.Cut(wrong.Value, " ")
		if wrong.Field == "" {
			return usagef("want a JSON object, not a %s", kind)
		}
		return usagef("%q: want a string, not a %s", wrong.Field, kind)
	case errors.As(err, &syntax):
		return usagef("not JSON, at byte %d", syntax.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return usagef("not JSON: the line ends in the middle")
	case strings.Contains(err.Error(), "base64"):
		return usagef(`"value_base64": not base64`)
	}
	return usagef("%s", strings.TrimPrefix(err.Error(), "json: ")) // an unknown field
}
