package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"connectrpc.com/connect"

	"syncagent/agent"
	apiv1 "syncagent/agent/api/v1"
	"syncagent/agent/api/v1/apiv1connect"
	"syncagent/sync/mirror"
)

// serveFake gives a mirror's source over a fake agent.
func serveFake(t *testing.T, h apiv1connect.KVHandler) apiSource {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "a.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(apiv1connect.NewKVHandler(h))
	s := &http.Server{Handler: mux}
	go s.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { s.Close() })
	client, err := agent.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return apiSource{client}
}

func put(t *testing.T, s apiSource, path, value string) {
	t.Helper()
	if _, err := s.client.KV.Put(t.Context(), connect.NewRequest(&apiv1.PutRequest{Path: path, Value: []byte(value)})); err != nil {
		t.Fatal(err)
	}
}

func TestSourceListFetchWatch(t *testing.T) {
	s := serveFake(t, newFakeAgent())
	put(t, s, "/m/a", "1")
	put(t, s, "/m/b", "22")
	put(t, s, "/other", "x")
	var paths []string
	cursor, err := s.List(t.Context(), "/m", func(f mirror.File) error {
		if f.Version.IsZero() {
			t.Errorf("%s has no version", f.Path)
		}
		paths = append(paths, fmt.Sprintf("%s:%d", f.Path, f.Size))
		return nil
	})
	if want := []string{"/m/a:1", "/m/b:2"}; err != nil || !slices.Equal(paths, want) {
		t.Fatalf("List gave %s, %v, want %s", paths, err, want)
	}
	got := map[string]string{}
	err = s.Fetch(t.Context(), []string{"/m/a", "/m/gone", "/m/b"}, func(f mirror.File, r io.Reader) error {
		b, err := io.ReadAll(r)
		got[f.Path] = string(b)
		return err
	})
	if err != nil || len(got) != 2 || got["/m/a"] != "1" || got["/m/b"] != "22" {
		t.Errorf("Fetch gave %v, %v", got, err)
	}
	put(t, s, "/m/c", "3")
	stop := errors.New("enough")
	err = s.Watch(t.Context(), "/m", cursor, func(c mirror.Change) error {
		if c.Path != "/m/c" || c.Deleted || c.More {
			t.Errorf("Watch told of %+v", c)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("Watch = %v", err)
	}
}

func TestSourceFetchGivesErrorsOfTheCaller(t *testing.T) {
	s := serveFake(t, newFakeAgent())
	put(t, s, "/m/a", "1")
	stop := errors.New("stop")
	if err := s.Fetch(t.Context(), []string{"/m/a"}, func(mirror.File, io.Reader) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Fetch = %v", err)
	}
}

// damaged answers as an agent whose copy of a value is damaged, and which does not know the cursor.
type damaged struct{ *fakeAgent }

func (damaged) Get(context.Context, *connect.Request[apiv1.GetRequest]) (*connect.Response[apiv1.GetResponse], error) {
	return nil, apiError(connect.CodeDataLoss, "corrupt", "stored data is damaged")
}

func (damaged) Watch(context.Context, *connect.Request[apiv1.WatchRequest], *connect.ServerStream[apiv1.WatchResponse]) error {
	return apiError(connect.CodeInvalidArgument, "bad_cursor", "bad cursor")
}

func TestSourceDamagedValueIsAnErrorOfItsPathAlone(t *testing.T) {
	s := serveFake(t, damaged{newFakeAgent()})
	called := 0
	err := s.Fetch(t.Context(), []string{"/m/a", "/m/b"}, func(f mirror.File, r io.Reader) error {
		called++
		if _, err := io.ReadAll(r); err == nil || f.Path == "" {
			t.Errorf("%q was read without an error", f.Path)
		}
		return nil
	})
	if err != nil || called != 2 {
		t.Errorf("Fetch = %v after %d paths", err, called)
	}
}

func TestSourceCursorOfNoUseResets(t *testing.T) {
	never := func(c mirror.Change) error { return fmt.Errorf("told of %+v", c) }
	for name, s := range map[string]apiSource{
		"reset event": serveFake(t, newFakeAgent()), "bad cursor": serveFake(t, damaged{newFakeAgent()}),
	} {
		if err := s.Watch(t.Context(), "/m", "elsewhere", never); !errors.Is(err, mirror.ErrReset) {
			t.Errorf("%s: Watch = %v, want ErrReset", name, err)
		}
	}
}
