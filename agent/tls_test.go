package agent

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	apiv1 "syncagent/agent/api/v1"
	"syncagent/agent/api/v1/apiv1connect"
	"syncagent/crdtstore/record"
)

// tlsAgent is an agent that serves TLS, with an authority of its own and keys for the parts in the policy.
type tlsAgent struct {
	*testAgent
	network testNetwork
	dir     string
	ca      *Authority
	url     string
	keys    map[string]ed25519.PrivateKey
	serial  int
}

// tlsPolicy names reader, writer and gone as identities, and two names in certificates.
var tlsPolicy = []string{
	"reader /certs read", "writer /certs rw", "writer /drop write", "gone / rw",
	"cn:grafana /certs read", "spiffe://corp.example/web /certs read", "* /public read",
}

func newTLSAgent(t *testing.T) *tlsAgent {
	t.Helper()
	a := prepareTLSAgent(t)
	a.start()
	a.url = "https://" + a.agent.running.doors.tls.Addr().String()
	for _, path := range []string{"/certs/web", "/certs2/web", "/hush/key", "/public/x", "/drop/x"} {
		if err := a.put(path, "value of "+path); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// prepareTLSAgent is newTLSAgent without the start.
func prepareTLSAgent(t *testing.T) *tlsAgent {
	t.Helper()
	n := newTestNetwork(t)
	a := &tlsAgent{testAgent: newTestAgent(t, n), network: n, dir: t.TempDir(), keys: map[string]ed25519.PrivateKey{}}
	for _, name := range []string{"reader", "writer", "gone", "stranger"} {
		a.keys[name] = newKey(t)
	}
	authority := CertFiles{filepath.Join(a.dir, "ca.crt"), filepath.Join(a.dir, "ca.key")}
	if err := CreateAuthority(authority, "test", time.Hour); err != nil {
		t.Fatal(err)
	}
	var err error
	if a.ca, err = LoadAuthority(authority); err != nil {
		t.Fatal(err)
	}
	a.config.API.TLS = TLSConfig{"127.0.0.1:0", filepath.Join(a.dir, "server.crt"), filepath.Join(a.dir, "server.key"), authority.Cert}
	if err := a.ca.Server(CertFiles{a.config.API.TLS.Cert, a.config.API.TLS.Key}, []string{"127.0.0.1", "localhost"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.config.PolicyFile(), a.nextPolicy(tlsPolicy...), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *tlsAgent) nextPolicy(lines ...string) []byte {
	a.serial++
	for _, name := range []string{"reader", "writer", "gone"} {
		lines = append(lines, fmt.Sprintf("identity %s %s", name, record.KeyOf(a.keys[name])))
	}
	return a.network.policy(a.serial, map[string]record.PublicKey{"web1": a.key}, lines...)
}

// sign makes a certificate; change may change what it says. Signer nil: it is signed by its own key.
func (a *tlsAgent) sign(by *Authority, key crypto.Signer, change func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	t := certTemplate("grafana", time.Hour)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if change != nil {
		change(t)
	}
	if by == nil {
		by = &Authority{t, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, by.cert, key.Public(), by.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *tlsAgent) identity(name string) tls.Certificate { return a.sign(nil, a.keys[name], nil) }

func (a *tlsAgent) http(certs ...tls.Certificate) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(a.ca.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}, ForceAttemptHTTP2: true}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// kvOf gives a client that speaks gRPC, which needs HTTP/2.
func (a *tlsAgent) kvOf(c tls.Certificate) apiv1connect.KVClient {
	return apiv1connect.NewKVClient(a.http(c), a.url, connect.WithGRPC())
}

func otherKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Certificates that say nothing end in the handshake; the others give what the policy says of them, and no more.
func TestCertificatesAtTheDoor(t *testing.T) {
	a := newTLSAgent(t)
	a.apply(append([]string{"revoke " + record.KeyOf(a.keys["gone"]).String()}, tlsPolicy...)...)
	foreign := &Authority{certTemplate("foreign", time.Hour), otherKey(t)}
	foreign.cert.IsCA, foreign.cert.BasicConstraintsValid = true, true
	uris := func(list ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.Subject = pkix.Name{}
			for _, s := range list {
				u, err := url.Parse(s)
				if err != nil {
					t.Fatal(err)
				}
				c.URIs = append(c.URIs, u)
			}
		}
	}
	name := func(cn string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.Subject.CommonName = cn }
	}
	key := otherKey(t)
	const refused = 0
	for _, test := range []struct {
		name string
		cert tls.Certificate
		want int // status of reading /certs/web
	}{
		{"an identity", a.identity("reader"), http.StatusOK},
		{"an identity, signed by a foreign authority", a.sign(foreign, a.keys["reader"], nil), http.StatusOK},
		{"a name that a rule calls", a.sign(a.ca, key, nil), http.StatusOK},
		{"a SPIFFE ID that a rule calls", a.sign(a.ca, key, uris("spiffe://corp.example/web")), http.StatusOK},

		{"no certificate", tls.Certificate{}, refused},
		{"a key that nobody knows", a.identity("stranger"), refused},
		{"a foreign authority", a.sign(foreign, key, nil), refused},
		{"no authority", a.sign(nil, key, nil), refused},
		{"a revoked identity", a.identity("gone"), refused},
		{"a revoked identity with the name of another", a.sign(a.ca, a.keys["gone"], nil), refused},
		{"expired", a.sign(a.ca, key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), refused},
		{"not yet valid", a.sign(a.ca, key, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), refused},
		{"an identity, expired", a.sign(nil, a.keys["reader"], func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), refused},
		{"for servers only", a.sign(a.ca, key, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), refused},
		{"no name", a.sign(a.ca, key, name("")), refused},
		{"a name of two words", a.sign(a.ca, key, name("grafana x")), refused},
		{"two names", a.sign(a.ca, key, func(c *x509.Certificate) {
			c.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: commonName, Value: "x"}, {Type: commonName, Value: "grafana"}}
		}), refused},
		{"two SPIFFE IDs", a.sign(a.ca, key, uris("spiffe://corp.example/other", "spiffe://corp.example/web")), refused},
		{"a SPIFFE ID beside another URI", a.sign(a.ca, key, uris("https://corp.example/", "spiffe://corp.example/web")), refused},

		{"the alias of an identity as name", a.sign(a.ca, key, name("reader")), http.StatusForbidden},
		{"an alias with the prefix of names", a.sign(a.ca, key, name("cn:grafana")), http.StatusForbidden},
		{"another case", a.sign(a.ca, key, name("Grafana")), http.StatusForbidden},
		{"a group as name", a.sign(a.ca, key, name("@hosts")), http.StatusForbidden},
		{"everybody as name", a.sign(a.ca, key, name("*")), refused},
		{"a SPIFFE ID as name", a.sign(a.ca, key, name("spiffe://corp.example/web")), http.StatusForbidden},
		{"a name as SPIFFE path", a.sign(a.ca, key, uris("spiffe://grafana")), http.StatusForbidden},
		{"SPIFFE: trailing slash", a.sign(a.ca, key, uris("spiffe://corp.example/web/")), http.StatusForbidden},
		{"SPIFFE: another case", a.sign(a.ca, key, uris("spiffe://Corp.example/web")), http.StatusForbidden},
		{"SPIFFE: longer", a.sign(a.ca, key, uris("spiffe://corp.example/web2")), http.StatusForbidden},
		{"SPIFFE: below", a.sign(a.ca, key, uris("spiffe://corp.example/web/x")), http.StatusForbidden},
		{"SPIFFE: dots", a.sign(a.ca, key, uris("spiffe://corp.example/x/../web")), http.StatusForbidden},
		{"SPIFFE: escaped", a.sign(a.ca, key, uris("spiffe://corp.example/%77eb")), http.StatusForbidden},
		{"SPIFFE: port", a.sign(a.ca, key, uris("spiffe://corp.example:1/web")), http.StatusForbidden},
		{"SPIFFE: user", a.sign(a.ca, key, uris("spiffe://x@corp.example/web")), http.StatusForbidden},
		{"SPIFFE: query", a.sign(a.ca, key, uris("spiffe://corp.example/web?x")), http.StatusForbidden},
	} {
		var certs []tls.Certificate
		if test.cert.Certificate != nil {
			certs = append(certs, test.cert)
		}
		r, err := a.http(certs...).Get(a.url + "/v1/kv/certs/web")
		got := refused
		if err == nil {
			got = r.StatusCode
			_ = r.Body.Close()
		}
		if got != test.want {
			t.Errorf("%s: %d (%v), want %d", test.name, got, err, test.want)
		}
	}
}

func (a *tlsAgent) apply(lines ...string) {
	a.t.Helper()
	if err := applyPolicy(a.t.Context(), a.client, a.nextPolicy(lines...)); err != nil {
		a.t.Fatal(err)
	}
}

// Clients that speak something else than TLS 1.3 get nothing, and hold nothing up.
func TestOtherProtocolsAtTheTLSPort(t *testing.T) {
	a := newTLSAgent(t)
	address := strings.TrimPrefix(a.url, "https://")
	old := a.http(a.identity("reader"))
	old.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
	if r, err := old.Get(a.url + "/healthz"); err == nil {
		t.Errorf("TLS 1.2: %v", r.Status)
	}
	if r, err := http.Get("http://" + address + "/v1/kv/certs/web"); err != nil || r.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP: %v %v", r, err)
	}
	large, err := http.NewRequest(http.MethodGet, a.url+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	large.Header.Set("X-Large", strings.Repeat("x", 2*headerBytes))
	if r, err := a.http(a.identity("reader")).Do(large); err == nil && r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("large headers: %v", r.Status)
	}
	silent, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // the agent closes it
	if _, err := silent.Write([]byte{22, 3, 1}); err != nil {
		t.Fatal(err)
	}
	_ = silent.SetReadDeadline(time.Now().Add(4 * headerTimeout))
	if _, err := io.Copy(io.Discard, silent); err != nil {
		t.Errorf("a handshake that does not go on: %v", err)
	}
}

// What comes by TLS is judged by the caller's rights and the agent's, at every door of the API.
func TestCallersByTLS(t *testing.T) {
	a, ctx := newTLSAgent(t), t.Context()
	subject := a.sign(a.ca, otherKey(t), nil)
	raw := func(c tls.Certificate, method, path string) int {
		t.Helper()
		r, err := http.NewRequest(method, a.url+path, strings.NewReader("v"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := a.http(c).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close() //nolint:errcheck // read only
		return response.StatusCode
	}
	const ok, done, denied, bad = http.StatusOK, http.StatusNoContent, http.StatusForbidden, http.StatusBadRequest
	for _, test := range []struct {
		cert         tls.Certificate
		method, path string
		want         int
	}{
		{a.identity("reader"), "GET", "/v1/kv/certs/web", ok},
		{a.identity("reader"), "GET", "/v1/kv/public/x", ok},
		{a.identity("reader"), "GET", "/v1/kv/certs2/web", denied},
		{a.identity("reader"), "GET", "/v1/kv/hush/key", denied},
		{a.identity("reader"), "GET", "/v1/kv/hush/none", denied},
		{a.identity("reader"), "GET", "/v1/kv/CERTS/web", denied},
		{a.identity("reader"), "GET", "/v1/kv/certs/%2e%2e/hush/key", bad},
		{a.identity("reader"), "GET", "/v1/kv/certs%2F..%2Fhush/key", bad},
		{a.identity("reader"), "GET", "/v1/kv/certs/web/", bad},
		{a.identity("reader"), "GET", "/v1/kv//certs/web", bad},
		{a.identity("reader"), "GET", "/v1/kv/certs/%ff", bad},
		{a.identity("reader"), "GET", "/v1/kv/.sys/x", denied},
		{a.identity("reader"), "GET", "/v1/watch/hush", denied},
		{a.identity("reader"), "PUT", "/v1/kv/certs/web", denied},
		{a.identity("reader"), "DELETE", "/v1/kv/certs/web", denied},
		{a.identity("writer"), "PUT", "/v1/kv/certs/new", done},
		{a.identity("writer"), "PUT", "/v1/kv/hush/key", denied},
		{a.identity("writer"), "DELETE", "/v1/kv/drop/x", denied}, // tells whether it is there
		{a.identity("writer"), "GET", "/debug/pprof/", denied},
		{subject, "GET", "/v1/kv/certs/web", ok},
		{subject, "GET", "/v1/kv/public/x", denied}, // * stands for identities
		{subject, "GET", "/v1/kv/hush/key", denied},
		{subject, "PUT", "/v1/kv/certs/web", denied},
		{subject, "DELETE", "/v1/kv/certs/web", denied},
	} {
		if got := raw(test.cert, test.method, test.path); got != test.want {
			t.Errorf("%s %s: %d, want %d", test.method, test.path, got, test.want)
		}
	}

	// gRPC and a write of one's own. Who relays it does not count; who signed it does.
	kv := a.kvOf(a.identity("writer"))
	if _, err := kv.Put(ctx, put("/certs/grpc", "v")); err != nil {
		t.Errorf("put by gRPC: %v", err)
	}
	relay := &Client{KV: a.kvOf(subject)}
	op := func(path string) []*apiv1.Op {
		return []*apiv1.Op{{Op: &apiv1.Op_Put{Put: &apiv1.PutRequest{Path: path, Value: []byte("v")}}}}
	}
	if _, err := relay.WriteSigned(ctx, a.keys["writer"], a.network.id, op("/certs/signed")); err != nil {
		t.Errorf("relay by a name that may only read: %v", err)
	}
	if got := codeOfCall(relay.WriteSigned(ctx, a.keys["reader"], a.network.id, op("/certs/signed"))); got != CodeDenied {
		t.Errorf("relay of a write by who may only read: %q", got)
	}

	// Nobody by TLS steers the agent or hears names from it; identities may know the policy.
	for name, test := range map[string]struct {
		cert tls.Certificate
		show Code
	}{"identity": {a.identity("writer"), ""}, "name": {subject, CodeDenied}} {
		h := a.http(test.cert)
		agent, policy := apiv1connect.NewAgentClient(h, a.url), apiv1connect.NewPolicyClient(h, a.url)
		if got := codeOfCall(agent.PausePeers(ctx, connect.NewRequest(&apiv1.PausePeersRequest{}))); got != CodeDenied {
			t.Errorf("%s pauses: %q", name, got)
		}
		if got := codeOfCall(agent.Reload(ctx, connect.NewRequest(&apiv1.ReloadRequest{}))); got != CodeDenied {
			t.Errorf("%s reloads: %q", name, got)
		}
		if got := codeOfCall(policy.Show(ctx, connect.NewRequest(&apiv1.ShowRequest{}))); got != test.show {
			t.Errorf("%s asks for the policy: %q", name, got)
		}
	}
}

// A revoked identity loses its open connections, and no new one is let in.
func TestIdentityRevokedWhileConnected(t *testing.T) {
	a, ctx := newTLSAgent(t), t.Context()
	kv := a.kvOf(a.identity("gone"))
	stream, err := kv.Watch(ctx, connect.NewRequest(&apiv1.WatchRequest{Prefixes: []string{"/hush"}}))
	if err != nil || !stream.Receive() {
		t.Fatalf("watch: %v", err)
	}
	idle, err := tls.Dial("tcp", strings.TrimPrefix(a.url, "https://"), a.http(a.identity("gone")).Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()                                       //nolint:errcheck // the agent closes it
	_ = idle.SetReadDeadline(time.Now().Add(judgeEvery / 2)) // before it would be found by chance
	if _, err := fmt.Fprintf(idle, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Read(make([]byte, 1<<10)); err != nil {
		t.Fatalf("it was not let in: %v", err)
	}
	a.apply(append([]string{"revoke " + record.KeyOf(a.keys["gone"]).String()}, tlsPolicy...)...)
	for stream.Receive() { // until it breaks
	}
	if _, err := io.Copy(io.Discard, idle); os.IsTimeout(err) {
		t.Error("an idle connection stays open")
	}
	if _, err := a.kvOf(a.identity("gone")).Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: "/certs/web"})); err == nil {
		t.Error("it is let in again")
	}
	if _, err := a.kvOf(a.identity("reader")).Get(ctx, connect.NewRequest(&apiv1.GetRequest{Path: "/certs/web"})); err != nil {
		t.Errorf("another one is not: %v", err)
	}
}
