package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "syncagent/agent/api/v1"
)

// TestPageView holds the one word for each state, and what is left out for who may not see names of paths.
func TestPageView(t *testing.T) {
	peer := func(connected, equal bool) *apiv1.Peer { return &apiv1.Peer{Connected: connected, Equal: equal} }
	for want, s := range map[string]*apiv1.StatusResponse{
		"starting/warn":   {},
		"unadmitted/warn": {Ready: true},
		"paused/warn":     {Ready: true, PolicySerial: 1, Paused: true},
		"single/warn":     {Ready: true, PolicySerial: 1},
		"alone/warn":      {Ready: true, PolicySerial: 1, Peers: []*apiv1.Peer{peer(false, false)}},
		"syncing/warn":    {Ready: true, PolicySerial: 1, Peers: []*apiv1.Peer{peer(true, true), peer(true, false)}},
		"synced/ok":       {Ready: true, PolicySerial: 1, Peers: []*apiv1.Peer{peer(true, true), peer(false, false)}},
	} {
		if v := pageView(s, true); v.State+"/"+v.Level != want || v.Explanation == "" {
			t.Errorf("%s/%s, want %s", v.State, v.Level, want)
		}
	}
	exit := int32(1)
	s := &apiv1.StatusResponse{
		Alarms: []*apiv1.Alarm{{Code: "corrupt", Since: timestamppb.Now(), Message: "SECRET is damaged", Hint: "h"}},
		Mirrors: []*apiv1.Mirror{
			{Name: "/SECRET", Prefix: "/SECRET", Dir: "/srv/SECRET", LastError: "SECRET", LastOutput: "SECRET"}, {Name: "certs", Prefix: "/SECRET"},
			{Name: "p", State: "paused", LastError: "SECRET"},
		},
		Triggers: []*apiv1.Trigger{{Path: "/SECRET", Command: "SECRET", LastExit: &exit, LastOutput: "SECRET"}},
	}
	if text := fmt.Sprintf("%+v", pageView(s, false)); strings.Contains(text, "SECRET") || !strings.Contains(text, "mirrors[0]") || !strings.Contains(text, "certs") {
		t.Errorf("over TCP: %s", text)
	}
	v := pageView(s, true)
	if m := v.Mirrors; m[0].Dir == "" || m[0].Output != "SECRET" || m[0].Level != "bad" || m[2].Level != "warn" {
		t.Errorf("mirrors over the socket: %+v", m)
	}
	if v.Alarms[0].Message == "" || v.Triggers[0].Output != "SECRET" || v.Triggers[0].Level != "bad" {
		t.Errorf("over the socket: %+v", v)
	}
	if withoutNames(s); strings.Contains(s.String(), "SECRET") {
		t.Errorf("for a caller that may not know names: %v", s)
	}
}

// plainServer serves what api.http serves, on a free port.
func (s *testServer) plainServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, s.plainHandler(), quiet()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func httpGet(t *testing.T, target, host string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read only
	var b strings.Builder
	_, _ = bufio.NewReader(response.Body).WriteTo(&b)
	return response, b.String()
}

// TestStatusPageTellsNoSecrets holds that no value is shown anywhere, and no path over TCP.
func TestStatusPageTellsNoSecrets(t *testing.T) {
	s := startServer(t)
	if _, err := s.client.KV.Put(t.Context(), put("/hidden/path", "hidden value")); err != nil {
		t.Fatal(err)
	}
	s.service.alarms.Raise("paused", "", "<script>alert(1)</script>")
	_, full := s.do(t, http.MethodGet, "/", "")
	for _, want := range []string{"/hidden", "&lt;script&gt;alert(1)", "syncagent peers resume"} {
		if !strings.Contains(full, want) {
			t.Errorf("the socket's page lacks %q", want)
		}
	}
	base := s.plainServer(t)
	response, open := httpGet(t, base+"/", "localhost:7425")
	if strings.Contains(open, "/hidden") || strings.Contains(full+open, "hidden value") || !strings.Contains(full, "/hidden/path") || strings.Contains(full, "<script>alert") {
		t.Error("a page tells too much")
	}
	for _, want := range []string{"syncagent peers resume", "12D3x", "1 of 2 connected"} {
		if !strings.Contains(open, want) {
			t.Errorf("the open page lacks %q", want)
		}
	}
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
	} {
		if got := response.Header.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, outside := range []string{"http://", "https://", "//cdn", "@import", "url("} {
		if strings.Contains(strings.ReplaceAll(open, "http://localhost:7425/", ""), outside) {
			t.Errorf("the page refers to something outside: %s", outside)
		}
	}
	for host, want := range map[string]int{
		"evil.example": 421, "evil.example:7425": 421, "127.0.0.1:7425": 200, "[::1]:7425": 200, "localhost": 200, "10.0.0.1": 200,
	} {
		if response, _ := httpGet(t, base+"/", host); response.StatusCode != want {
			t.Errorf("host %s: %s", host, response.Status)
		}
	}
}

// TestStatusPageEvents holds that a viewer gets all sections, then those that change, and that viewers are limited.
func TestStatusPageEvents(t *testing.T) {
	s := startServer(t)
	base := s.plainServer(t)
	open := func() *bufio.Scanner {
		response, err := http.Get(base + "/events")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(nil, 1<<20)
		return lines
	}
	next := func(lines *bufio.Scanner) (sections map[string]string) {
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &sections); err != nil {
					t.Fatal(err)
				}
				return sections
			}
		}
		t.Fatal(lines.Err())
		return nil
	}
	lines := open()
	if first := next(lines); len(first) != 7 || !strings.Contains(first["peers"], "12D3x") {
		t.Errorf("%v", first)
	}
	s.service.alarms.Raise("paused", "", "m")
	if second := next(lines); second["peers"] != "" || !strings.Contains(second["alarms"], "paused") || !strings.Contains(second["head"], "1 alarm<") {
		t.Errorf("%v", second)
	}
	for range pageViewers - 1 {
		next(open())
	}
	if response, _ := httpGet(t, base+"/events", "localhost"); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one viewer too many: %s", response.Status)
	}
}
