package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"
)

// output is stdout. It keeps the first error: commands print and go on, and run makes a failure of it at the end, so
// that a full disk never looks like a short result.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(b)
	o.err = err
	return n, err
}

// terminal tells whether a person reads it.
func (o *output) terminal() bool { return isTerminal(o.w) }

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// input is stdin. A read that waits ends when ctx does: a command can be interrupted while nobody types.
type input struct {
	ctx context.Context //nolint:containedctx // an io.Reader has no other place for it
	r   io.Reader
}

func (i *input) Read(b []byte) (n int, err error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	own := make([]byte, len(b)) // b belongs to the caller again as soon as this returns
	go func() {
		n, err := i.r.Read(own)
		done <- result{own[:n], err}
	}()
	select {
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	case r := <-done:
		return copy(b, r.data), r.err
	}
}

func (i *input) terminal() bool { return isTerminal(i.r) }

// printJSON writes v as one line. The values are our own types, which always encode.
func printJSON(w io.Writer, v any) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // stdout keeps its errors, stderr has nobody to tell
}

// table writes rows in aligned columns. An empty head prints none.
func table(w io.Writer, head []string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(head) > 0 {
		fmt.Fprintln(t, strings.Join(head, "\t"))
	}
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	_ = t.Flush()
}
