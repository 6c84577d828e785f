package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"syncagent/agent/api/v1/apiv1connect"
)

// Client calls the API of an agent. It is safe for concurrent use. Errors of its calls become an *Error by ErrorOf.
type Client struct {
	KV     apiv1connect.KVClient
	Agent  apiv1connect.AgentClient
	Policy apiv1connect.PolicyClient

	http *http.Client
}

// maxAnswer bounds one message of an answer.
const maxAnswer = 64 << 20

// Dial makes a client of the agent at address: the path of a unix socket, or an http URL. It does not connect yet.
func Dial(address string) (*Client, error) { return DialTarget(Target{Address: address}) }

// DialTarget is Dial for an agent that may be on another host.
func DialTarget(t Target) (*Client, error) {
	transport := &http.Transport{
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
		ForceAttemptHTTP2:   true,
	}
	base := "http://agent" // names nobody: the transport knows where the socket is
	var err error
	switch {
	case t.Address == "":
		return nil, &Error{Code: CodeBadRequest, Message: "no socket named", Hint: "name it with --socket or --config"}
	case t.socket():
		var dialer net.Dialer
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", t.Address)
		}
	default:
		if base, err = t.base(); err != nil {
			return nil, err
		}
		if strings.HasPrefix(base, "https:") {
			if transport.TLSClientConfig, err = t.tls(); err != nil {
				return nil, err
			}
		}
	}
	h := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("an agent never redirects")
	}}
	options := []connect.ClientOption{
		connect.WithReadMaxBytes(maxAnswer),
		connect.WithAcceptCompression("gzip", nil, nil),
	}
	return &Client{
		KV:     apiv1connect.NewKVClient(h, base, options...),
		Agent:  apiv1connect.NewAgentClient(h, base, options...),
		Policy: apiv1connect.NewPolicyClient(h, base, options...),
		http:   h,
	}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }
