package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// codeRow says how an error of ours looks from outside.
type codeRow struct {
	is      error // nil: only *Error values have this code
	code    Code
	connect connect.Code
	http    int
	hint    string
}

// codeRows is the one table between errors of the store, codes, Connect and HTTP.
var codeRows = []codeRow{
	{crdtstore.ErrNotFound, CodeNotFound, connect.CodeNotFound, http.StatusNotFound, ""},
	{crdtstore.ErrNoPolicy, CodeNoPolicy, connect.CodePermissionDenied, http.StatusForbidden,
		"this agent has no policy yet: it comes from a peer that admitted it (syncagent acl admit there), or from syncagent acl apply here"},
	{crdtstore.ErrDenied, CodeDenied, connect.CodePermissionDenied, http.StatusForbidden,
		"syncagent acl show tells what is allowed; an admin changes it with syncagent acl apply"},
	{crdtstore.ErrPrecondition, CodePrecondition, connect.CodeFailedPrecondition, http.StatusPreconditionFailed,
		"syncagent get -o json tells what is there now, and its version"},
	{crdtstore.ErrTooLarge, CodeTooLarge, connect.CodeInvalidArgument, http.StatusRequestEntityTooLarge, ""},
	{crdtstore.ErrClock, CodeClock, connect.CodeUnavailable, http.StatusServiceUnavailable, "check the time service of the agent's host"},
	{crdtstore.ErrFormat, CodeOldVersion, connect.CodeFailedPrecondition, http.StatusServiceUnavailable,
		"install the version of syncagent that the other hosts run"},
	{crdtstore.ErrDiskFull, CodeDiskFull, connect.CodeResourceExhausted, http.StatusInsufficientStorage,
		"free space on the disk of data_dir, or lower store.min_free"},
	{crdtstore.ErrCorrupt, CodeCorrupt, connect.CodeDataLoss, http.StatusInternalServerError,
		"the entry is fetched again from a peer; check the disk and syncagent status"},
	{crdtstore.ErrBadCursor, CodeBadCursor, connect.CodeInvalidArgument, http.StatusBadRequest, "leave the cursor out to start from the present state"},
	{crdtstore.ErrPolicy, CodeBadPolicy, connect.CodeInvalidArgument, http.StatusBadRequest, "syncagent acl check tells what is wrong with a policy"},
	{crdtstore.ErrClosed, CodeStopping, connect.CodeUnavailable, http.StatusServiceUnavailable, ""},
	{context.DeadlineExceeded, CodeTimeout, connect.CodeDeadlineExceeded, http.StatusGatewayTimeout, "allow it more time (--timeout); syncagent status and syncagent doctor tell how the agent is"},
	{context.Canceled, CodeCanceled, connect.CodeCanceled, 499, ""},
	{nil, CodeBadPath, connect.CodeInvalidArgument, http.StatusBadRequest, "a path looks like /certs/web/tls.key"},
	{nil, CodeBadRequest, connect.CodeInvalidArgument, http.StatusBadRequest, ""},
	{nil, CodeBusy, connect.CodeResourceExhausted, http.StatusServiceUnavailable, "try again, or raise limits.requests or limits.watches"},
	{nil, CodeInternal, connect.CodeInternal, http.StatusInternalServerError, "the agent's log says more"},
}

func rowOf(code Code) codeRow {
	for _, r := range codeRows {
		if r.code == code {
			return r
		}
	}
	return codeRows[len(codeRows)-1]
}

// classify makes an *Error of any error of the parts behind the API.
func classify(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*record.PathError](err); ok {
		return &Error{Code: CodeBadPath, Message: e.Error(), Hint: rowOf(CodeBadPath).hint, Err: err}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return timedOut(err, err.Error())
	}
	for _, r := range codeRows {
		if r.is != nil && errors.Is(err, r.is) {
			return &Error{Code: r.code, Message: err.Error(), Hint: r.hint, Err: err}
		}
	}
	return &Error{Code: CodeInternal, Message: err.Error(), Hint: rowOf(CodeInternal).hint, Err: err}
}

// toConnect makes the error that Connect sends, with an ErrorInfo as detail.
func toConnect(err error) *connect.Error {
	if c, ok := errors.AsType[*connect.Error](err); ok {
		return c // Connect's own: malformed message, too large, unknown method
	}
	e := classify(err)
	c := connect.NewError(rowOf(e.Code).connect, errors.New(e.Message))
	detail, derr := connect.NewErrorDetail(&apiv1.ErrorInfo{Code: string(e.Code), Message: e.Message, Hint: e.Hint})
	if derr == nil {
		c.AddDetail(detail)
	}
	return c
}

// writeHTTPError answers a raw request with an error as JSON.
func writeHTTPError(w http.ResponseWriter, err error) {
	e := classify(err)
	body := map[string]any{"error": map[string]string{"code": string(e.Code), "message": e.Message, "hint": e.Hint}}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(rowOf(e.Code).http)
	_ = json.NewEncoder(w).Encode(body) // the caller is gone; nobody is left to tell
}

// ErrorOf makes an *Error of what a call of the API returned: the agent's own if it sent one. It returns nil for nil.
func ErrorOf(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if c, ok := errors.AsType[*connect.Error](err); ok {
		if e := detailOf(c); e != nil {
			e.Err = err
			return e
		}
		if e := unreachable(err); e != nil {
			return e
		}
		if c.Code() == connect.CodeDeadlineExceeded {
			return timedOut(err, c.Message())
		}
		return &Error{Code: codeOfConnect(c.Code()), Message: c.Message(), Err: err}
	}
	if e := unreachable(err); e != nil {
		return e
	}
	return classify(err)
}

func timedOut(err error, message string) *Error {
	message = strings.Replace(message, context.DeadlineExceeded.Error(), "no answer in time", 1)
	return &Error{Code: CodeTimeout, Message: message, Hint: rowOf(CodeTimeout).hint, Err: err}
}

func detailOf(c *connect.Error) *Error {
	for _, d := range c.Details() {
		value, err := d.Value()
		if info, ok := value.(*apiv1.ErrorInfo); err == nil && ok {
			return &Error{Code: Code(info.GetCode()), Message: info.GetMessage(), Hint: info.GetHint()}
		}
	}
	return nil
}

// unreachable recognises that nobody answered.
func unreachable(err error) *Error {
	if e := tlsFailure(err); e != nil {
		return e
	}
	op, ok := errors.AsType[*net.OpError](err)
	if !ok {
		c, isConnect := errors.AsType[*connect.Error](err)
		// In the middle of an answer, which Connect takes for a faulty one; a lost ping has no error with a name.
		cut := errors.Is(err, io.ErrUnexpectedEOF) || strings.HasSuffix(err.Error(), "http2: client connection lost")
		if !isConnect || c.Code() != connect.CodeUnavailable && !cut {
			return nil
		}
		return &Error{Code: CodeUnreachable, Message: "the agent's connection broke: " + err.Error(), Err: err,
			Hint: "see whether it is running: syncagent status"}
	}
	at := "the address"
	if op.Addr != nil {
		at = op.Addr.Network() + ":" + op.Addr.String()
	}
	e := &Error{Code: CodeUnreachable, Err: err, Message: "no agent at " + at + ": " + op.Err.Error(),
		Hint: "start it with syncagent agent (systemctl start syncagent), or name another with --config, --socket or --server"}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		e.Message = "no agent at " + at + ": " + errno.Error()
	}
	if errors.Is(err, os.ErrPermission) {
		e.Message = "no access to the agent at " + at
		e.Hint = "your user must be in the group of the socket (api.socket_group)"
	}
	return e
}

// codeOfConnect translates errors that Connect made itself.
func codeOfConnect(c connect.Code) Code {
	switch c {
	case connect.CodeInvalidArgument, connect.CodeUnimplemented, connect.CodeOutOfRange:
		return CodeBadRequest
	case connect.CodeResourceExhausted:
		return CodeTooLarge
	case connect.CodeUnavailable:
		return CodeUnreachable
	case connect.CodeCanceled:
		return CodeCanceled
	}
	return CodeInternal
}
