package agent

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// papers are the TLS files of the API, and what they say of a client: its certificate is either of an identity key that
// the policy names, whoever signed it, or signed for a client by client_ca and bears a name.
type papers struct {
	log    *slog.Logger
	alarms *Alarms
	policy func() policy
	now    func() time.Time

	mu    sync.Mutex
	files *tlsFiles
}

// tlsFiles is what was read from the files of api.tls.
type tlsFiles struct {
	config TLSConfig
	cert   tls.Certificate
	client *x509.CertPool // nil: identity keys only
	states [3]fileState   // of cert, key, client_ca
}

// fileState tells whether a file is another one than before.
type fileState struct {
	size int64
	time time.Time
}

func statOf(file string) fileState {
	info, err := os.Stat(file)
	if err != nil {
		return fileState{}
	}
	return fileState{info.Size(), info.ModTime()}
}

func (c TLSConfig) states() [3]fileState {
	return [3]fileState{statOf(c.Cert), statOf(c.Key), statOf(c.ClientCA)}
}

// readTLS reads the files of api.tls. Its errors are an *Error that names the key.
func readTLS(c TLSConfig) (*tlsFiles, error) {
	bad := func(key, hint string, err error) error {
		return &Error{Code: CodeBadConfig, Message: fmt.Sprintf("api.tls.%s: %v", key, err), Hint: hint, Err: err}
	}
	f := &tlsFiles{config: c, states: c.states()} // first: a change while we read is seen later
	if err := checkKeyMode(c.Key); err != nil {
		return nil, bad("key", "chmod 600 "+c.Key, err)
	}
	var err error
	if f.cert, err = tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
		return nil, bad("cert", "`syncagent cert server` makes a pair for who has none", err)
	}
	if now := time.Now(); now.After(f.cert.Leaf.NotAfter) || now.Before(f.cert.Leaf.NotBefore) {
		return nil, bad("cert", "make a new one and reload", fmt.Errorf("%s is valid from %s to %s", c.Cert,
			clockTime(f.cert.Leaf.NotBefore), clockTime(f.cert.Leaf.NotAfter)))
	}
	if c.ClientCA == "" {
		return f, nil
	}
	text, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, bad("client_ca", "", err)
	}
	f.client = x509.NewCertPool()
	if !f.client.AppendCertsFromPEM(text) {
		return nil, bad("client_ca", "", errors.New(c.ClientCA+" holds no certificate in PEM form"))
	}
	return f, nil
}

// checkKeyMode refuses a private key that everybody can read. A group may: certificates are often handed out that way.
func checkKeyMode(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o027 != 0 {
		return fmt.Errorf("%s has mode %04o: others can use it", file, info.Mode().Perm())
	}
	return nil
}

func (p *papers) current() *tlsFiles {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.files
}

func (p *papers) use(f *tlsFiles) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files = f
	p.alarms.Clear(alarmTLS, "")
}

const alarmTLS = "tls-files"

// look reads the files again if they changed. Bad ones leave the old in use, with an alarm.
func (p *papers) look() {
	old := p.current()
	if old.config.states() == old.states {
		return
	}
	f, err := readTLS(old.config)
	if err != nil {
		p.alarms.Raise(alarmTLS, "", "the TLS files changed and are of no use; those before stay in use: "+err.Error())
		return
	}
	p.use(f)
	p.log.Info("tls files read again")
}

// config is what a door serves TLS with. Every connection has its own, as a visit is judged in its handshake.
func (p *papers) config() *tls.Config {
	told := rate.Sometimes{First: 10, Interval: time.Minute} // strangers must not fill the log
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			v := hello.Conn.(*visit) //nolint:forcetypeassert // our listener gave it
			return &tls.Config{
				MinVersion:             tls.VersionTLS13,
				Certificates:           []tls.Certificate{p.current().cert},
				ClientAuth:             tls.RequireAnyClientCert, // and judged below: an identity needs no authority
				NextProtos:             []string{"h2", "http/1.1"},
				SessionTicketsDisabled: true, // every connection shows its certificate
				VerifyConnection: func(s tls.ConnectionState) error {
					err := v.meet(func() (*caller, error) { return p.judge(s.PeerCertificates) })
					if err != nil {
						told.Do(func() { p.log.Info("api client refused", "from", v.RemoteAddr().String(), "error", err.Error()) })
					}
					return err
				},
			}, nil
		},
	}
}

// judge tells who a client with these certificates is. The handshake has shown that it has the key of the first.
func (p *papers) judge(certs []*x509.Certificate) (*caller, error) {
	leaf, now := certs[0], p.now()
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return nil, fmt.Errorf("certificate is valid from %s to %s", clockTime(leaf.NotBefore), clockTime(leaf.NotAfter))
	}
	if c, err := p.identity(leaf); c != nil || err != nil {
		return c, err
	}
	pool := p.current().client
	if pool == nil {
		return nil, errors.New("the policy names no identity with this key, and api.tls.client_ca is not set")
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	names, err := subjectsOf(leaf)
	if err != nil {
		return nil, err
	}
	text := strings.Join(names, " ")
	return &caller{name: text, rights: subjectRights(names), mark: markOf(text)}, nil
}

// identity gives the caller whose identity key a certificate holds, nil if the policy never named the key.
func (p *papers) identity(leaf *x509.Certificate) (*caller, error) {
	public, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, nil
	}
	k, inForce := record.PublicKey(public), p.policy()
	if err := k.Check(); err != nil {
		return nil, err
	}
	switch {
	case inForce == nil || !inForce.Known(k):
		return nil, nil
	case !inForce.Live(k):
		return nil, fmt.Errorf("key %s is revoked, retired or no identity any more", k)
	}
	return &caller{name: inForce.Alias(k), rights: identityRights(k), policy: true, mark: markOf(k.String())}, nil
}

var commonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// subjectsOf gives the names in a certificate by which rules can call its bearer: one common name, one SPIFFE ID. What
// could be read in two ways is refused.
func subjectsOf(leaf *x509.Certificate) (names []string, err error) {
	common := 0
	for _, n := range leaf.Subject.Names {
		if n.Type.Equal(commonName) {
			common++
		}
	}
	if common > 1 {
		return nil, errors.New("certificate has two common names")
	}
	if common == 1 {
		names = append(names, "cn:"+leaf.Subject.CommonName)
	}
	for _, u := range leaf.URIs {
		if strings.EqualFold(u.Scheme, "spiffe") {
			if len(leaf.URIs) > 1 { // X.509-SVID, section 2
				return nil, errors.New("certificate has a SPIFFE ID beside another URI")
			}
			names = append(names, u.String())
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !acl.IsSubject(n) })
	if len(names) == 0 {
		return nil, errors.New("certificate has neither a common name nor a SPIFFE ID that a rule could name")
	}
	return names, nil
}

// identityRights are those of an identity in the policy.
type identityRights record.PublicKey

func (k identityRights) reads(p policy, path string) bool {
	return p.MayReadPath(record.PublicKey(k), path)
}
func (k identityRights) writes(p policy, path string) bool {
	return p.MayWritePath(record.PublicKey(k), path)
}

// subjectRights are those of names in a certificate: to read where a rule says so.
type subjectRights []string

func (n subjectRights) reads(p policy, path string) bool {
	return slices.ContainsFunc(n, func(name string) bool { return p.MaySubjectRead(name, path) })
}
func (subjectRights) writes(policy, string) bool { return false }
