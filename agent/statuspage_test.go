package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
		Alarms:   []*apiv1.Alarm{{Code: "corrupt", Since: timestamppb.Now(), Message: "SECRET is damaged", Hint: "h"}},
		Mirrors:  []*apiv1.Mirror{{Name: "/SECRET", Prefix: "/SECRET", Dir: "/srv/SECRET", LastError: "SECRET"}, {Name: "certs", Prefix: "/SECRET"}},
		Triggers: []*apiv1.Trigger{{Path: "/SECRET", Command: "SECRET", LastExit: &exit, LastOutput: "SECRET"}},
	}
	if text := fmt.Sprintf("%+v", pageView(s, false)); strings.Contains(text, "SECRET") || !strings.Contains(text, "mirrors[0]") || !strings.Contains(text, "certs") {
		t.Errorf("over TCP: %s", text)
	}
	if v := pageView(s, true); v.Alarms[0].Message == "" || v.Mirrors[0].Dir == "" || v.Triggers[0].Output != 6 || v.Triggers[0].Level != "bad" {
		t.Errorf("over the socket: %+v", v)
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
	if strings.Contains(open, "/hidden") || strings.Contains(full+open, "hidden value") || strings.Contains(full+open, "/hidden/path") || strings.Contains(full, "<script>alert") {
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
	if first := next(lines); len(first) != 6 || !strings.Contains(first["peers"], "12D3x") {
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

// TestStatusPageInBrowser looks at the page with headless Chromium: its text, live and still, and pictures in
// four forms, which stay in $SCREENSHOTS if that is set.
func TestStatusPageInBrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed: the page was not looked at in a browser")
	}
	s := startServer(t, func(s *server) { s.service.peers, s.service.mirrors = &sampleNetwork{}, sampleMirrors{} })
	s.service.alarms.Raise("mirror-failing", "nginx", "open /etc/nginx/conf.d/site.conf: read-only file system")
	s.service.alarms.Raise("disk-full", "", "less than 256MiB are free")
	base := s.plainServer(t)
	profile := t.TempDir()
	chromium := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		args = append([]string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
			"--user-data-dir=" + profile, "--timeout=2500",
		}, append(args, base+"/")...)
		out, err := exec.CommandContext(ctx, browser, args...).Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	shown := chromium("--dump-dom")
	_, still := httpGet(t, base+"/", "localhost") // what is there without JavaScript
	for _, want := range []string{"web2", "disk-full", "synced", "equal", "store.min_free"} {
		if !strings.Contains(shown, want) || !strings.Contains(still, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	live := make(chan bool, 1)
	go func() {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for len(s.page.viewers) == 0 {
			select {
			case <-ctx.Done():
				live <- false
				return
			case <-ticker.C:
			}
		}
		live <- true
	}()
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		folder = t.TempDir()
	}
	for _, width := range []int{1280, 390} {
		for _, theme := range []string{"light", "dark"} {
			file := filepath.Join(folder, fmt.Sprintf("status-%d-%s.png", width, theme))
			args := []string{"--screenshot=" + file, fmt.Sprintf("--window-size=%d,1400", width)}
			if theme == "dark" {
				args = append(args, "--blink-settings=preferredColorScheme=0")
			}
			chromium(args...)
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			picture, err := png.Decode(f)
			_ = f.Close()
			if err != nil {
				t.Fatal(err)
			}
			r, _, _, _ := picture.At(2, 2).RGBA()
			if dark := r < 0x8000; dark != (theme == "dark") || picture.Bounds().Dx() < width {
				t.Errorf("%s: background %x, %v", file, r, picture.Bounds())
			}
		}
	}
	if !<-live {
		t.Error("the page's script does not follow the events")
	}
}

// sampleNetwork and sampleMirrors are what a picture of the page shows.
type sampleNetwork struct{ fakeNetwork }

func (*sampleNetwork) Peers() []*apiv1.Peer {
	ms := func(v float64) *float64 { return &v }
	return []*apiv1.Peer{
		{PeerId: "12D3KooWQn4tENiQCvGnGqXJ5p3QT1RpfsoviHZKJfr2DfeQ168q", Alias: "web2", Connected: true, Equal: true, RttMs: ms(0.4), ClockSkewMs: ms(38), PolicySerial: 42, Version: "0.1.0", Addr: "/ip4/10.0.0.12/udp/7424/quic-v1"},
		{PeerId: "12D3KooWPu3aQMyDpmz3keEdvgJERr1ttCjxnH68Vj3XdVQYZ9N5", Alias: "db1", Connected: true, Equal: true, RttMs: ms(12.25), ClockSkewMs: ms(-4), PolicySerial: 42, Version: "0.1.0", Addr: "/ip6/2001:db8::5/tcp/7424"},
		{PeerId: "12D3KooWRm8rQMyDpmz3keEdvgJERr1ttCjxnH68Vj3XdVQYZ9N5", Alias: "db2", Addr: "/dns4/db2/tcp/7424"},
	}
}

type sampleMirrors struct{ noMirrors }

func (sampleMirrors) Status() ([]*apiv1.Mirror, []*apiv1.Trigger) {
	exit := int32(1)
	return []*apiv1.Mirror{
		{Name: "certs", Prefix: "/certs", Dir: "/etc/ssl/synced", State: "ok", Files: 12},
		{Name: "nginx", Prefix: "/nginx", Dir: "/etc/nginx/conf.d", State: "failing", Files: 7, Pending: 1, LastError: "read-only file system"},
	}, []*apiv1.Trigger{{Path: "/nginx", Command: "nginx -s reload", Runs: 4, LastExit: &exit, LastOutput: "unknown directive"}}
}
