package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"syncagent/agent"
	"syncagent/crdtstore/record"
)

func TestClassify(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	api := func(code agent.Code) error { return apiError(connect.CodeUnknown, string(code), "told by the agent") }
	for _, row := range []struct {
		name string
		ctx  context.Context
		err  error
		exit int
		code string
	}{
		{"anything", t.Context(), errors.New("x"), 1, "failed"},
		{"usage, wrapped", t.Context(), fmt.Errorf("read: %w", usagef("x")), 2, "usage"},
		{"path", t.Context(), record.CheckPath("x"), 2, "bad_path"},
		{"not found", t.Context(), api(agent.CodeNotFound), 3, "not_found"},
		{"denied", t.Context(), api(agent.CodeDenied), 4, "denied"},
		{"no policy", t.Context(), api(agent.CodeNoPolicy), 4, "no_policy"},
		{"stopping", t.Context(), api(agent.CodeStopping), 5, "stopping"},
		{"precondition", t.Context(), api(agent.CodePrecondition), 6, "precondition"},
		{"too large", t.Context(), api(agent.CodeTooLarge), 2, "too_large"},
		{"bad policy", t.Context(), api(agent.CodeBadPolicy), 2, "bad_policy"},
		{"bad cursor", t.Context(), api(agent.CodeBadCursor), 2, "bad_cursor"},
		{"disk full", t.Context(), api(agent.CodeDiskFull), 1, "disk_full"},
		{"clock", t.Context(), api(agent.CodeClock), 1, "clock"},
		{"in use", t.Context(), &agent.Error{Code: agent.CodeInUse}, 1, "in_use"},
		{"key file mode", t.Context(), &agent.Error{Code: agent.CodeBadKeyFile}, 2, "bad_key_file"},
		{"no key file", t.Context(), &agent.Error{Code: agent.CodeNoKeyFile}, 1, "no_key_file"},
		{"interrupted", ended, context.Canceled, 130, "interrupted"},
		{"interrupted call", ended, connect.NewError(connect.CodeCanceled, context.Canceled), 130, "interrupted"},
		{"own reasons at the end", ended, api(agent.CodeDenied), 4, "denied"},
		{"out of time", t.Context(), fmt.Errorf("read: %w", context.DeadlineExceeded), 1, "timeout"},
		{"call out of time", t.Context(), connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded), 1, "timeout"},
		{"canceled by itself", t.Context(), context.Canceled, 1, "failed"},
	} {
		f := classify(row.ctx, row.err)
		if f.exit != row.exit || f.code != row.code {
			t.Errorf("%s: exit %d, code %s, want %d, %s", row.name, f.exit, f.code, row.exit, row.code)
		}
		if row.code == "timeout" && (!strings.HasSuffix(f.message, "no answer in time") || f.hint == "") {
			t.Errorf("%s: %q, hint %q", row.name, f.message, f.hint)
		}
	}
}

func TestFailurePrint(t *testing.T) {
	f := failf(exitPartly, "partly", "deleted %d: %w", 3, errors.New("x < y")).withHint("one\ntwo")
	var b strings.Builder
	f.print(&b, true)
	want := "syncagent: error: deleted 3: x < y\nhint: one\nhint: two\n" +
		`{"error":{"code":"partly","hint":"one\ntwo","message":"deleted 3: x < y"}}` + "\n"
	if b.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", b.String(), want)
	}
}
