package agent

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"time"
)

// expirySoon is how long before the end of a certificate it is time to make the next.
const expirySoon = 14 * 24 * time.Hour

// tls checks the files by which the API is served on TCP.
func (d *diagnosis) tls(now time.Time) {
	c := &d.config.API
	if _, err := readToken(c.TokenFile); err != nil && !errors.Is(err, fs.ErrPermission) {
		e := classify(err)
		d.fail("token-file", e.Hint, "%s", e.Message)
	}
	if c.TLS.Listen == "" {
		return
	}
	f, err := readTLS(c.TLS)
	switch {
	case errors.Is(err, fs.ErrPermission):
		d.warn("tls", "run doctor as the agent's user", "%v", err)
		return
	case err != nil:
		e := classify(err)
		d.fail("tls", e.Hint, "%s", e.Message)
		return
	}
	soon := 0
	for _, each := range []struct {
		key   string
		certs []*x509.Certificate
		hint  string
	}{
		{"api.tls.cert", []*x509.Certificate{f.cert.Leaf}, "make the next one (syncagent cert server); the agent takes it without a restart"},
		{"api.tls.client_ca", certsIn(c.TLS.ClientCA), "make the next authority (syncagent cert ca), and put both into the file until all clients have certificates of it"},
	} {
		for _, cert := range each.certs {
			if cert.NotAfter.Sub(now) < expirySoon {
				soon++
				d.warn("tls", each.hint, "%s ends on %s", each.key, clockTime(cert.NotAfter))
			}
		}
	}
	if soon == 0 {
		d.ok("tls", "%s is valid until %s", c.TLS.Cert, clockTime(f.cert.Leaf.NotAfter))
	}
}

// certsIn gives the certificates in a PEM file that readTLS has taken.
func certsIn(file string) (certs []*x509.Certificate) {
	rest, err := os.ReadFile(file)
	if file == "" || err != nil {
		return nil
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return certs
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			certs = append(certs, cert)
		}
	}
}
