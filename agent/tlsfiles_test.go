package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// serverName gives what the certificate that an agent shows is for.
func (a *tlsAgent) serverName() string {
	c, err := tls.Dial("tcp", strings.TrimPrefix(a.url, "https://"), a.http(a.identity("reader")).Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // nothing to lose
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// replace puts another certificate and key in place of the server's.
func (a *tlsAgent) replace(cert, key string) {
	a.t.Helper()
	for from, to := range map[string]string{cert: a.config.API.TLS.Cert, key: a.config.API.TLS.Key} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
}

// Files that changed are taken without a restart, bad ones are not, whether the agent finds them or is told by a reload.
func TestTLSFilesChange(t *testing.T) {
	a := newTLSAgent(t)
	look := a.agent.running.doors.papers.look
	if got := a.serverName(); got != "127.0.0.1" {
		t.Fatalf("the first certificate is for %q", got)
	}
	next := CertFiles{filepath.Join(a.dir, "next.crt"), filepath.Join(a.dir, "next.key")}
	if err := a.ca.Server(next, []string{"localhost", "127.0.0.1"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	a.replace(next.Cert, next.Cert) // no key
	look()
	if list := a.agent.Alarms().List(); len(list) != 1 || list[0].Code != alarmTLS {
		t.Errorf("alarms after bad files: %v", list)
	}
	if _, _, err := a.agent.Reload(a.config); codeOf(err) != CodeBadConfig {
		t.Errorf("reload with bad files: %v", err)
	}
	if got := a.serverName(); got != "127.0.0.1" {
		t.Errorf("after bad files the certificate is for %q", got)
	}
	a.replace(next.Cert, next.Key)
	look()
	if list := a.agent.Alarms().List(); len(list) != 0 {
		t.Errorf("alarms after good files: %v", list)
	}
	if got := a.serverName(); got != "localhost" {
		t.Errorf("the next certificate is for %q", got)
	}

	// An authority that goes takes its clients with it, and leaves the identities.
	subject := a.http(a.sign(a.ca, otherKey(t), nil))
	if r, err := subject.Get(a.url + "/v1/kv/certs/web"); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", r, err)
	}
	c := a.config
	c.API.TLS.ClientCA = ""
	if applied, _, err := a.agent.Reload(c); err != nil || len(applied) != 1 || applied[0] != "api.tls.client_ca" {
		t.Fatalf("%q %v", applied, err)
	}
	waitFor(t, func() bool { _, err := subject.Get(a.url + "/healthz"); return err != nil })
	if r, err := a.http(a.identity("reader")).Get(a.url + "/v1/kv/certs/web"); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("an identity without the authority: %v %v", r, err)
	}
}

// Nobody has to tell an agent of new files: it looks again and again, and who is connected by an authority that is gone
// is put out.
func TestTLSFilesAreLookedAt(t *testing.T) {
	a := newTLSAgent(t)
	d := a.agent.running.doors
	quick := &doors{bell: make(chan struct{}, 1), tick: time.Millisecond, socket: d.socket, tls: d.tls, papers: d.papers}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = quick.run(ctx) })
	defer done.Wait()
	defer cancel()

	next := CertFiles{filepath.Join(a.dir, "next.crt"), filepath.Join(a.dir, "next.key")}
	if err := a.ca.Server(next, []string{"localhost", "127.0.0.1"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	a.replace(next.Cert, next.Key)
	waitFor(t, func() bool { return a.serverName() == "localhost" })

	connected, err := tls.Dial("tcp", strings.TrimPrefix(a.url, "https://"),
		a.http(a.sign(a.ca, otherKey(t), nil)).Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close() //nolint:errcheck // nothing to lose
	other := CertFiles{filepath.Join(a.dir, "other.crt"), filepath.Join(a.dir, "other.key")}
	if err := CreateAuthority(other, "other", time.Hour); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(other.Cert)
	if err == nil {
		err = os.WriteFile(a.config.API.TLS.ClientCA, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = connected.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, connected); os.IsTimeout(err) {
		t.Error("a client of an authority that is gone stays connected")
	}
}

// More connections than a door has room for are closed, counted and told of; when others end there is room again.
func TestDoorThatIsFull(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	turned := newMetrics("test").turnedAway
	d := newDoor(l)
	defer d.Close() //nolint:errcheck // it is only listened on
	d.most, d.full = 2, crowd("api.tls.listen", turned, slog.New(slog.NewTextHandler(&log, nil)))
	in := make(chan net.Conn)
	go func() {
		for {
			c, err := d.Accept()
			if err != nil {
				close(in)
				return
			}
			in <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dial()
	first := <-in
	dial()
	<-in
	for range 2 {
		c := dial()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Fatalf("the door is full, and a connection stays open: %v", err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	dial()
	<-in
	var m dto.Metric
	if err := turned.Write(&m); err != nil || m.GetCounter().GetValue() != 2 {
		t.Errorf("counted %v, %v", m.GetCounter(), err)
	}
	if n := strings.Count(log.String(), "too many are open"); n != 1 {
		t.Errorf("%d lines in the log:\n%s", n, &log)
	}
}

// A certificate that ends while its bearer is connected ends the connection.
func TestCertificateEndsWhileConnected(t *testing.T) {
	now := time.Now()
	a := newTLSAgent(t)
	p := &papers{log: quiet(), alarms: NewAlarms(quiet()), policy: func() policy { return a.agent.running.store.Policy() }, now: func() time.Time { return now }}
	cert, err := x509.ParseCertificate(a.identity("reader").Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	v := &visit{Conn: ours}
	if err := v.meet(func() (*caller, error) { return p.judge([]*x509.Certificate{cert}) }); err != nil {
		t.Fatal(err)
	}
	v.meetAgain()
	_ = theirs.SetReadDeadline(time.Now())
	if _, err := theirs.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Fatalf("before its end: %v", err)
	}
	now = now.Add(2 * time.Hour)
	v.meetAgain()
	_ = theirs.SetReadDeadline(time.Time{})
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after its end: %v", err)
	}
}

// An agent whose TLS files are of no use does not start, and says which.
func TestTLSFaultsAtTheStart(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*tlsAgent)
		want  string
	}{
		"no certificate": {func(a *tlsAgent) { _ = os.Remove(a.config.API.TLS.Cert) }, "api.tls.cert"},
		"key for all":    {func(a *tlsAgent) { _ = os.Chmod(a.config.API.TLS.Key, 0o644) }, "api.tls.key"}, //nolint:gosec // that is the point
		"empty authority": {func(a *tlsAgent) {
			a.config.API.TLS.ClientCA = filepath.Join(a.dir, "empty")
			_ = os.WriteFile(a.config.API.TLS.ClientCA, nil, 0o600)
		}, "api.tls.client_ca"},
		"expired": {func(a *tlsAgent) {
			old := CertFiles{filepath.Join(a.dir, "old.crt"), filepath.Join(a.dir, "old.key")}
			if err := a.ca.Server(old, []string{"x"}, -time.Minute); err != nil {
				a.t.Fatal(err)
			}
			a.replace(old.Cert, old.Key)
		}, "api.tls.cert"},
		"port in use": {func(a *tlsAgent) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				a.t.Fatal(err)
			}
			a.t.Cleanup(func() { _ = l.Close() })
			a.config.API.TLS.Listen = l.Addr().String()
		}, "api.tls.listen"},
		"short token": {func(a *tlsAgent) {
			a.config.API.TokenFile = filepath.Join(a.dir, "token")
			_ = os.WriteFile(a.config.API.TokenFile, []byte("short\n"), 0o600)
		}, "api.token_file"},
	} {
		t.Run(name, func(t *testing.T) {
			a := prepareTLSAgent(t)
			test.spoil(a)
			if err := a.fails(); err == nil || !strings.Contains(err.Error(), test.want) || ErrorOf(err).Code == CodeInternal {
				t.Errorf("%v", err)
			}
		})
	}
}

// The token shows names of paths on the status page to who comes by TCP. A wrong one does not.
func TestTokenOfTheStatusPage(t *testing.T) {
	a := newTLSAgent(t)
	c := a.config
	c.API.TokenFile = filepath.Join(a.dir, "token")
	const token = "a-token-of-some-length"
	if err := os.WriteFile(c.API.TokenFile, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fetch := func(header string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, "http://"+a.agent.running.http.Addr().String()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close() //nolint:errcheck // read only
		text, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(text)
	}
	basic := func(password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte("any:"+password))
	}
	for _, header := range []string{"Bearer ", basic("")} { // the first arrives without its space
		if status, _ := fetch(header); status != http.StatusUnauthorized {
			t.Errorf("%q, and no token is set: %d", header, status)
		}
	}
	if applied, _, err := a.agent.Reload(c); err != nil || len(applied) != 1 {
		t.Fatalf("%q %v", applied, err)
	}
	for header, want := range map[string]int{
		"": 200, "Bearer " + token: 200, basic(token): 200,
		token: 401, "Bearer " + token + "x": 401, "Bearer ": 401, "Basic " + token: 401, basic(""): 401, basic(token + "x"): 401,
	} {
		status, text := fetch(header)
		if status != want || strings.Contains(text, "/hush") != (header != "" && want == 200) || strings.Contains(text, "value of") {
			t.Errorf("%q: %d, names: %v", header, status, strings.Contains(text, "/hush"))
		}
	}
}

// A profile is for who acts as the agent; the request log tells who asked what, and no path.
func TestProfileAndRequestLog(t *testing.T) {
	var lines bytes.Buffer
	s := startServer(t, func(s *server) {
		s.log = slog.New(slog.NewTextHandler(&lines, nil))
		s.logRequests.Store(true)
	})
	if r, text := s.do(t, "GET", "/debug/pprof/goroutine?debug=1", ""); r.StatusCode != http.StatusOK || !strings.Contains(text, "goroutine profile") {
		t.Errorf("%s %.60s", r.Status, text)
	}
	narrow := s.clientOf(t, &caller{name: "narrow", rights: onlyBelow{}})
	if r, err := narrow.http.Get("http://agent/debug/pprof/heap"); err != nil || r.StatusCode != http.StatusForbidden {
		t.Errorf("a narrowed caller profiles: %v %v", r, err)
	}
	_ = codeOfCall(narrow.KV.Put(t.Context(), put("/hush/name", "hush-value")))
	s.do(t, "PUT", "/v1/kv/hush/name", "hush-value")
	s.stop()
	text := lines.String()
	for _, want := range []string{"method=\"raw put\" caller=\"uid ", "method=KV/Put caller=narrow", "code=denied"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not say %s:\n%s", want, text)
		}
	}
	if strings.Contains(text, "hush-value") {
		t.Errorf("the log holds a value:\n%s", text)
	}
}

func TestDoctorLooksAtTLS(t *testing.T) {
	a := newTLSAgent(t)
	severities := func(now time.Time) (words string) {
		d := diagnosis{config: a.config}
		d.tls(now)
		for _, f := range d.findings {
			words += string(f.Severity) + " " + f.Check + " "
		}
		return words
	}
	if got := severities(time.Now().Add(-20 * 24 * time.Hour)); got != "ok tls " {
		t.Errorf("long before the end: %q", got)
	}
	if got := severities(time.Now()); got != "warn tls warn tls " {
		t.Errorf("an hour before the end: %q", got)
	}
	if err := os.Chmod(a.config.API.TLS.Key, 0o666); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	if got := severities(time.Now()); got != "fail tls " {
		t.Errorf("a key for all: %q", got)
	}
}

// Whoever reaches the port can be refused as often as it likes, and must not fill the log with that.
func TestRefusedClientsDoNotFillTheLog(t *testing.T) {
	var log bytes.Buffer
	p := &papers{log: slog.New(slog.NewTextHandler(&log, nil)), files: &tlsFiles{}, policy: func() policy { return nil }, now: time.Now}
	config := p.config()
	conn, _ := net.Pipe()
	const attempts = 100
	for range attempts {
		c, err := config.GetConfigForClient(&tls.ClientHelloInfo{Conn: &visit{Conn: conn}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{certTemplate("stranger", time.Hour)}}); err == nil {
			t.Fatal("a stranger is in")
		}
	}
	if n := strings.Count(log.String(), "api client refused"); n == 0 || n > attempts/2 {
		t.Errorf("%d lines in the log for %d attempts:\n%s", n, attempts, &log)
	}
}
