package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"connectrpc.com/connect"

	"syncagent/agent"
	"syncagent/crdtstore/record"
)

// Exit codes. They are a contract.
const (
	exitOK           = 0
	exitError        = 1
	exitUsage        = 2 // all wrong input: flags, paths, config, values over a limit, tokens, policy texts, key file modes
	exitNotFound     = 3
	exitDenied       = 4
	exitUnreachable  = 5
	exitPrecondition = 6
	exitReplicas     = 7 // stored, but not (yet) by as many agents as asked for
	exitPartly       = 8 // some of many failed
	exitInterrupted  = 130
)

// failure is an error as the user sees it. Code is for programs, hint says what to do and may be empty.
type failure struct {
	exit          int
	code, message string
	hint          string
	cause         error
	hosts         []hostJSON // of a wait: who is how far; for programs
}

func (f *failure) Error() string { return f.message }
func (f *failure) Unwrap() error { return f.cause }

// withHint gives a copy with another hint.
func (f *failure) withHint(format string, args ...any) *failure {
	g := *f
	g.hint = fmt.Sprintf(format, args...)
	return &g
}

func usagef(format string, args ...any) *failure {
	return &failure{exit: exitUsage, code: "usage", message: fmt.Sprintf(format, args...)}
}

func failf(exit int, code, format string, args ...any) *failure {
	err := fmt.Errorf(format, args...)
	return &failure{exit: exit, code: code, message: err.Error(), cause: errors.Unwrap(err)}
}

// exitCodes maps the agent's codes to exit codes; what is missing here exits with exitError.
var exitCodes = map[agent.Code]int{
	agent.CodeNotFound:     exitNotFound,
	agent.CodeDenied:       exitDenied,
	agent.CodeNoPolicy:     exitDenied,
	agent.CodeUnreachable:  exitUnreachable,
	agent.CodeStopping:     exitUnreachable,
	agent.CodePrecondition: exitPrecondition,
	agent.CodeBadPath:      exitUsage,
	agent.CodeBadRequest:   exitUsage,
	agent.CodeBadPolicy:    exitUsage,
	agent.CodeBadCursor:    exitUsage,
	agent.CodeTooLarge:     exitUsage,
	agent.CodeBadConfig:    exitUsage,
	agent.CodeBadKeyFile:   exitUsage,
	agent.CodeBadBackup:    exitUsage,
}

// classify turns whatever a command returned into a failure. Only an error that the end of ctx caused counts as
// interrupted: a command that failed for its own reasons keeps them.
func classify(ctx context.Context, err error) *failure {
	f := &failure{exit: exitError, code: "failed", message: err.Error(), cause: err}
	known, isAgent := errors.AsType[*agent.Error](err)
	if _, ok := errors.AsType[*connect.Error](err); !isAgent && (ok || errors.Is(err, context.DeadlineExceeded)) {
		known, isAgent = agent.ErrorOf(err), true
	}
	canceled := errors.Is(err, context.Canceled) || isAgent && known.Code == agent.CodeCanceled
	if ctx.Err() != nil && canceled {
		f.exit, f.code, f.message = exitInterrupted, "interrupted", "interrupted"
		return f
	}
	if own, ok := errors.AsType[*failure](err); ok {
		f.exit, f.code, f.hint, f.hosts = own.exit, own.code, own.hint, own.hosts // the message keeps what was wrapped around it
		return f
	}
	if isAgent {
		f.code, f.message, f.hint = string(known.Code), known.Message, known.Hint
		if exit, ok := exitCodes[known.Code]; ok {
			f.exit = exit
		}
		return f
	}
	if _, ok := errors.AsType[*record.PathError](err); ok {
		f.exit, f.code, f.hint = exitUsage, string(agent.CodeBadPath), "a path looks like /certs/web/tls.key"
	}
	return f
}

// print writes the failure for people, and with json one line for programs after it.
func (f *failure) print(w io.Writer, json bool) {
	fmt.Fprintf(w, "syncagent: error: %s\n", f.message)
	for line := range strings.Lines(f.hint) {
		fmt.Fprintf(w, "hint: %s\n", strings.TrimRight(line, "\n"))
	}
	if json {
		out := map[string]any{"error": map[string]string{"code": f.code, "message": f.message, "hint": f.hint}}
		if f.hosts != nil {
			out["hosts"] = f.hosts
		}
		printJSON(w, out)
	}
}

// fileFailure says what is wrong with a file that the user named, without Go's "open x:" twice.
func fileFailure(what, name string, err error) *failure { return fileFailed("read", what, name, err) }

// makeFailure is fileFailure for what could not be made.
func makeFailure(what, name string, err error) *failure { return fileFailed("make", what, name, err) }

func fileFailed(doing, what, name string, err error) *failure {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return failf(exitError, "file", "%s %s %s: %w", doing, what, name, err)
}
