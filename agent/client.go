package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"connectrpc.com/connect"

	"syncagent/agent/api/v1/apiv1connect"
)

// Client calls the API of an agent. It is safe for concurrent use. Errors of its calls become an *Error by ErrorOf.
type Client struct {
	KV     apiv1connect.KVClient
	Agent  apiv1connect.AgentClient
	Policy apiv1connect.PolicyClient

	http   *http.Client
	agents int
}

const (
	maxAnswer   = 64 << 20        // bounds one message of an answer
	dialTimeout = 5 * time.Second // then the next agent is tried
)

// Dial makes a client of the agent at address: the path of a unix socket, or an http URL. It does not connect yet. With
// several addresses, of agents of one network, it uses the first for as long as that answers, then the next.
func Dial(addresses ...string) (*Client, error) {
	targets := make([]Target, len(addresses))
	for i, a := range addresses {
		targets[i].Address = a
	}
	return DialTargets(targets...)
}

// DialTargets is Dial for agents that may be on other hosts.
func DialTargets(targets ...Target) (*Client, error) {
	if len(targets) == 0 {
		return nil, &Error{Code: CodeBadRequest, Message: "no agent named", Hint: "name it with --socket, --server or --config"}
	}
	f := &failover{}
	for _, t := range targets {
		e, err := t.endpoint()
		if err != nil {
			return nil, err
		}
		f.all = append(f.all, e)
	}
	h := &http.Client{Transport: f, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("an agent never redirects")
	}}
	options := []connect.ClientOption{
		connect.WithReadMaxBytes(maxAnswer),
		connect.WithAcceptCompression("gzip", nil, nil),
	}
	const base = "http://agent" // names nobody: failover knows where the agents are
	return &Client{
		KV:     apiv1connect.NewKVClient(h, base, options...),
		Agent:  apiv1connect.NewAgentClient(h, base, options...),
		Policy: apiv1connect.NewPolicyClient(h, base, options...),
		http:   h,
		agents: len(targets),
	}, nil
}

// endpoint makes the way to a target.
func (t Target) endpoint() (e endpoint, err error) {
	plain := &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, DisableCompression: true}
	e.transport = plain
	dialer := net.Dialer{Timeout: dialTimeout}
	switch {
	case t.Address == "":
		return e, &Error{Code: CodeBadRequest, Message: "no socket named", Hint: "name it with --socket or --config"}
	case t.socket():
		e.base = &url.URL{Scheme: "http", Host: "agent"}
		plain.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", t.Address)
		}
		return e, nil
	}
	plain.DialContext = dialer.DialContext
	if e.base, err = t.base(); err != nil || e.base.Scheme == "http" {
		return e, err
	}
	config, err := t.tls()
	if err == nil {
		e.transport = agentTransport(&dialer, config)
	}
	return e, err
}

// Fetch writes what the agent answers at a path of its own, such as /metrics.
func (c *Client) Fetch(ctx context.Context, path string, to io.Writer) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return ErrorOf(err)
	}
	defer answer.Body.Close() //nolint:errcheck // read only
	if answer.StatusCode != http.StatusOK {
		return &Error{Code: CodeInternal, Message: "the agent answers " + answer.Status + " at " + path}
	}
	_, err = io.Copy(to, answer.Body)
	return err
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Agents is how many agents the client can choose from.
func (c *Client) Agents() int { return c.agents }
