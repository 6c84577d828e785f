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
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"syncagent/acl"
	"syncagent/crdtstore/record"
)

// CertFiles are the two files of a certificate, both in PEM form.
type CertFiles struct{ Cert, Key string }

// Authority signs certificates for those who have no other authority.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// certBackdate lets a certificate hold on hosts whose clocks are behind.
const certBackdate = time.Hour

// CreateAuthority makes an authority that signs servers and clients of the API, and nothing below another authority.
// The files must not exist yet, their directory is made; the key gets mode 0600. So it is with those of the other functions here.
func CreateAuthority(files CertFiles, name string, valid time.Duration) error {
	t := certTemplate(name, valid)
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return issue(files, t, nil)
}

// LoadAuthority reads an authority.
func LoadAuthority(files CertFiles) (*Authority, error) {
	hint := "`syncagent cert ca` makes an authority; its key is named with --ca-key"
	if err := checkKeyMode(files.Key); err != nil {
		return nil, &Error{Code: CodeBadKeyFile, Message: fmt.Sprintf("key of the authority: %v", err), Hint: hint, Err: err}
	}
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, &Error{Code: CodeBadKeyFile, Message: fmt.Sprintf("read authority: %v", err), Hint: hint, Err: err}
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, &Error{Code: CodeBadKeyFile, Message: files.Cert + " is not the certificate of an authority", Hint: hint}
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) {
		return nil, &Error{Code: CodeBadKeyFile, Message: fmt.Sprintf("authority %s was valid until %s", files.Cert, clockTime(pair.Leaf.NotAfter)), Hint: hint}
	}
	return &Authority{pair.Leaf, signer}, nil
}

// Server makes a certificate for an agent that clients reach by these DNS names and addresses.
func (a *Authority) Server(files CertFiles, hosts []string, valid time.Duration) error {
	t := certTemplate(hosts[0], valid)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if strings.ContainsAny(host, "/: \t") || host == "" {
			return badRequest("server %q: want a DNS name or an address, without a port", host)
		} else {
			t.DNSNames = append(t.DNSNames, host)
		}
	}
	return issue(files, t, a)
}

// Client makes a certificate for a client that rules of the policy call "cn:NAME", or by its SPIFFE ID.
func (a *Authority) Client(files CertFiles, name string, valid time.Duration) error {
	subject := "cn:" + name
	if strings.HasPrefix(name, "spiffe:") {
		subject = name
	}
	if !acl.IsSubject(subject) {
		return badRequest("client %q: want one word, or spiffe://DOMAIN/PATH", name)
	}
	t := certTemplate(name, valid)
	if subject == name {
		id, err := url.Parse(name)
		if err != nil || id.String() != name {
			return badRequest("client %q: not a SPIFFE ID", name)
		}
		t.Subject, t.URIs = pkix.Name{}, []*url.URL{id}
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return issue(files, t, a)
}

// IdentityCertificate makes a certificate of an identity key, signed by itself: for the API the key says who it is.
func IdentityCertificate(key ed25519.PrivateKey, valid time.Duration) (tls.Certificate, error) {
	t := certTemplate(record.KeyOf(key).String(), valid)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// WriteIdentityCertificate writes the certificate of the identity key in keyFile.
func WriteIdentityCertificate(certFile, keyFile string, valid time.Duration) error {
	key, err := LoadKey(keyFile)
	if err != nil {
		return err
	}
	c, err := IdentityCertificate(key, valid)
	if err != nil {
		return err
	}
	return createPEM(certFile, "CERTIFICATE", c.Certificate[0], 0o644)
}

func certTemplate(name string, valid time.Duration) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-certBackdate), NotAfter: now.Add(valid),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// issue makes a key and its certificate, signed by a, or by itself if a is nil.
func issue(files CertFiles, t *x509.Certificate, a *Authority) error {
	// P-256: browsers do not take Ed25519.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	if a == nil {
		a = &Authority{t, key}
	} else if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(files.Cert), 0o755); err != nil { //nolint:gosec // the key has its own mode
		return fmt.Errorf("make directory of certificates: %w", err)
	}
	// The key last, and neither if one is there: a pair that does not fit helps nobody.
	if _, err := os.Lstat(files.Key); err == nil {
		return fileExists(files.Key)
	}
	if err := createPEM(files.Cert, "CERTIFICATE", der, 0o644); err != nil {
		return err
	}
	if err := createPEM(files.Key, keyBlock, private, 0o600); err != nil {
		return errors.Join(err, os.Remove(files.Cert))
	}
	return nil
}

func createPEM(file, kind string, der []byte, mode fs.FileMode) error {
	err := createFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
	if errors.Is(err, fs.ErrExist) {
		return fileExists(file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

func fileExists(file string) error {
	return &Error{Code: CodeBadRequest, Message: file + " exists; it is not replaced", Hint: "move it away, or write to another directory with --dir", Err: fs.ErrExist}
}
