package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
)

// apiUser is a program that uses the API in its own way.
type apiUser interface {
	put(ctx context.Context, path, value string) error
	remove(ctx context.Context, path string) error
	// get fails with errAbsent if nothing is there.
	get(ctx context.Context, path string) (string, error)
	// list gives "path=value", ascending.
	list(ctx context.Context, prefix string) ([]string, error)
	// watch tells "put path=value", "delete path" and "synced" until told to end by an error.
	watch(ctx context.Context, prefix string, tell func(string) error) error
}

var (
	errAbsent = errors.New("nothing there")
	errEnough = errors.New("seen enough")
)

// What curl, a foreign gRPC library that knows no file of ours, and the Go client write, the other two find; and all
// three are told the same.
func TestEveryClientDoesTheSameWork(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	h := startFleet(t, []string{everything}, "a").hosts[0]
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	socket := filepath.Join(h.dir, "agent.sock")
	users := map[string]apiUser{"curl": curlUser(socket), "go": goUser{h.client}, "grpc": dialGRPC(ctx, t, socket)}

	told := map[string]chan string{}
	for name, u := range users {
		c := make(chan string, 100)
		told[name] = c
		go func() {
			err := u.watch(ctx, "/by", func(event string) error { c <- event; return nil })
			c <- fmt.Sprintf("the watch ended: %v", err)
		}()
	}
	expect := func(events ...string) {
		t.Helper()
		for name, c := range told {
			for _, want := range events {
				if got := <-c; got != want {
					t.Fatalf("%s was told %q, want %q", name, got, want)
				}
			}
		}
	}
	expect("synced")

	const value = "not text: \x00\xff\r\n"
	for writer, u := range users {
		dir := "/by/" + writer
		one, two := dir+"/one", dir+"/two"
		if err := errors.Join(u.put(ctx, one, "1"), u.put(ctx, two, value)); err != nil {
			t.Fatalf("%s puts: %v", writer, err)
		}
		shown(ctx, t, users, dir, map[string]string{one: "1", two: value})
		if err := u.remove(ctx, one); err != nil {
			t.Fatalf("%s deletes: %v", writer, err)
		}
		shown(ctx, t, users, dir, map[string]string{two: value})
		for name, u := range users {
			if got, err := u.get(ctx, one); !errors.Is(err, errAbsent) {
				t.Errorf("%s gets %q of what %s deleted, %v", name, got, writer, err)
			}
		}
		expect("put "+one+"=1", "put "+two+"="+value, "delete "+one)
	}
}

// shown checks that everybody finds this below dir.
func shown(ctx context.Context, t *testing.T, users map[string]apiUser, dir string, want map[string]string) {
	t.Helper()
	var lines []string
	for path, value := range want {
		lines = append(lines, path+"="+value)
	}
	slices.Sort(lines)
	for name, u := range users {
		for path, value := range want {
			if got, err := u.get(ctx, path); err != nil || got != value {
				t.Errorf("%s gets %q at %s, want %q, %v", name, got, path, value, err)
			}
		}
		if got, err := u.list(ctx, dir); err != nil || !slices.Equal(got, lines) {
			t.Errorf("%s lists %q, want %q, %v", name, got, lines, err)
		}
	}
}

// curlUser is the command, with the socket of the agent.
type curlUser string

func (c curlUser) run(ctx context.Context, in string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "curl", append([]string{"-sSN", "--unix-socket", string(c)}, args...)...)
	cmd.Stdin = strings.NewReader(in)
	cmd.WaitDelay = time.Second
	return cmd
}

func (c curlUser) kv(ctx context.Context, in, path string, args ...string) (string, error) {
	cmd := c.run(ctx, in, append(args, "-w", "%{stderr}%{http_code}", "http://agent/v1/kv"+path)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	switch code := errs.String(); {
	case err != nil:
		return "", fmt.Errorf("%w: %s", err, code)
	case code == "404":
		return "", errAbsent
	case code[0] != '2':
		return "", fmt.Errorf("status %s: %s", code, out)
	}
	return string(out), nil
}

func (c curlUser) put(ctx context.Context, path, value string) error {
	_, err := c.kv(ctx, value, path, "-T", "-")
	return err
}

func (c curlUser) remove(ctx context.Context, path string) error {
	_, err := c.kv(ctx, "", path, "-X", "DELETE")
	return err
}

func (c curlUser) get(ctx context.Context, path string) (string, error) {
	return c.kv(ctx, "", path)
}

// list is the beginning of a watch: plain HTTP has no other.
func (c curlUser) list(ctx context.Context, prefix string) (all []string, err error) {
	err = c.watch(ctx, prefix, func(event string) error {
		if event == "synced" {
			return errEnough
		}
		all = append(all, strings.TrimPrefix(event, "put "))
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return all, err
}

func (c curlUser) watch(ctx context.Context, prefix string, tell func(string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	cmd := c.run(ctx, "", "http://agent/v1/watch"+prefix+"?values=true")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return err
	}
	defer cmd.Wait() //nolint:errcheck // it is killed
	defer cancel()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e struct {
			Type, Path string
			Value      []byte `json:"value_base64"`
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("%q: %w", lines.Text(), err)
		}
		if err := tell(eventText(e.Type, e.Path, e.Value)); err != nil {
			return err
		}
	}
	return io.ErrUnexpectedEOF
}

// eventText is what watch tells of an event, whose type may be that of the API.
func eventText(kind, path string, value []byte) string {
	kind = strings.ToLower(strings.TrimPrefix(kind, "EVENT_TYPE_"))
	switch kind {
	case "put":
		return "put " + path + "=" + string(value)
	case "delete":
		return "delete " + path
	}
	return kind
}

// goUser is the client of this module.
type goUser struct{ *agent.Client }

func (g goUser) put(ctx context.Context, path, value string) error {
	_, err := g.KV.Put(ctx, connect.NewRequest(&apiv1.PutRequest{Path: path, Value: []byte(value)}))
	return err
}

func (g goUser) remove(ctx context.Context, path string) error {
	_, err := g.KV.Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Path: path}))
	return err
}

func (g goUser) get(ctx context.Context, path string) (string, error) {
	r, err := g.KV.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: path}))
	if err != nil && agent.ErrorOf(err).Code == agent.CodeNotFound {
		return "", errAbsent
	}
	if err != nil {
		return "", err
	}
	return string(r.Msg.Entry.Value), nil
}

func (g goUser) list(ctx context.Context, prefix string) (all []string, err error) {
	s, err := g.KV.List(ctx, connect.NewRequest(&apiv1.ListRequest{Prefix: prefix, Values: true}))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	for s.Receive() {
		for _, e := range s.Msg().Entries {
			all = append(all, e.Path+"="+string(e.Value))
		}
	}
	return all, s.Err()
}

func (g goUser) watch(ctx context.Context, prefix string, tell func(string) error) error {
	s, err := g.KV.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{prefix}, Values: true}))
	if err != nil {
		return err
	}
	defer s.Close()
	for s.Receive() {
		for _, e := range s.Msg().Events {
			if err := tell(eventText(e.Type.String(), e.GetEntry().GetPath(), e.GetEntry().GetValue())); err != nil {
				return err
			}
		}
	}
	return s.Err()
}
