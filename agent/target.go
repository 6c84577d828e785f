package agent

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// Target says where an agent is, and by which files client and agent prove to each other who they are.
type Target struct {
	// Address is the path of a socket, or an http or https URL. The other fields are for https.
	Address string
	// Cert and Key are files of the client's certificate, in PEM form. Without Cert, Key is an identity key, and a
	// certificate is made of it.
	Cert, Key string
	// CA is a file of the authorities that may sign for the agent; empty: those of the system.
	CA string
}

// identityCertLife is how long a certificate holds that is made for one connection.
const identityCertLife = 24 * time.Hour

// socket tells whether the target is a unix socket.
func (t Target) socket() bool { return !strings.Contains(t.Address, "://") }

// shown is the address for a message, without a user and a password.
func (t Target) shown() string {
	scheme, rest, _ := strings.Cut(t.Address, "://")
	return scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:]
}

// base gives scheme and host of a URL.
func (t Target) base() (*url.URL, error) {
	u, err := url.Parse(t.Address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, &Error{Code: CodeBadRequest, Message: "server " + t.shown() + ": want https://HOST:PORT"}
	}
	if u.Scheme == "http" && (t.Cert != "" || t.Key != "" || t.CA != "") {
		return nil, &Error{Code: CodeBadRequest, Message: "server " + t.shown() + ": certificates need https://"}
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// tls gives what a connection by https needs. The files are read for each new one, so that a certificate can be changed
// under a client that runs for long.
func (t Target) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS13}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("authority of servers: %v", err), Hint: "name it with --ca", Err: err}
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, &Error{Code: CodeBadRequest, Message: t.CA + " holds no certificate in PEM form"}
		}
	}
	if _, err := t.certificate(); err != nil {
		return nil, err
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.certificate() }
	return c, nil
}

// certificate reads the client's.
func (t Target) certificate() (*tls.Certificate, error) {
	switch {
	case t.Key == "":
		return nil, &Error{Code: CodeBadRequest, Message: "an agent by https wants to know who calls",
			Hint: "--key-file names an identity key, --cert and --key-file a certificate (syncagent cert client)"}
	case t.Cert == "":
		key, err := LoadKey(t.Key)
		if err != nil {
			return nil, err
		}
		c, err := IdentityCertificate(key, identityCertLife)
		return &c, err
	}
	if err := checkKeyMode(t.Key); err != nil {
		return nil, &Error{Code: CodeBadKeyFile, Message: fmt.Sprintf("key file: %v", err), Hint: "chmod 600 " + t.Key, Err: err}
	}
	c, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, &Error{Code: CodeBadKeyFile, Message: fmt.Sprintf("certificate of the client: %v", err),
			Hint: "--cert and --key-file must name a pair in PEM form", Err: err}
	}
	return &c, nil
}

// tlsFailure recognises that one side did not take the other's certificate.
func tlsFailure(err error) *Error {
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" { // what crypto/tls calls an alert
		return &Error{Code: CodeDenied, Err: err, Message: "the agent refused the connection: " + strings.TrimPrefix(alert.Err.Error(), "tls: "),
			Hint: "the certificate must be of an identity key that the policy names, or of a client and signed by api.tls.client_ca there; its log says more"}
	}
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &Error{Code: CodeUnreachable, Err: err, Message: "the server is not who it should be: " + bad.Err.Error(),
			Hint: "--ca names the authority that signed its certificate, which must have the name in --server"}
	}
	if header, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &Error{Code: CodeUnreachable, Err: err, Message: "what answers does not speak TLS: " + header.Msg, Hint: "--server wants the port of api.tls.listen"}
	}
	return nil
}
