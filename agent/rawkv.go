package agent

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

const rawPrefix = "/v1/kv"

// rawPath gives the path that a raw request names.
func rawPath(u *url.URL) (string, error) {
	path, err := pathBelow(u, rawPrefix)
	if err != nil {
		return "", err
	}
	return path, record.CheckPath(path)
}

// pathBelow gives what a URL names below a prefix, empty for the prefix itself. The URL is taken as it was sent: each
// segment is unescaped by itself, and nothing is cleaned, so that "..", "//" and %2F are refused by the check of paths
// and never mean another path than they seem to.
func pathBelow(u *url.URL, prefix string) (string, error) {
	escaped, ok := strings.CutPrefix(u.EscapedPath(), prefix)
	if !ok || escaped != "" && escaped[0] != '/' {
		return "", &Error{Code: CodeBadPath, Message: "the URL must begin with " + prefix + "/"}
	}
	var path strings.Builder
	for i, segment := range strings.Split(escaped, "/") {
		if i == 0 {
			continue // before the first slash
		}
		plain, err := url.PathUnescape(segment)
		if err != nil {
			return "", &Error{Code: CodeBadPath, Message: fmt.Sprintf("bad path: %v", err)}
		}
		if strings.Contains(plain, "/") {
			return "", &Error{Code: CodeBadPath, Message: "bad path: an escaped slash in a segment"}
		}
		path.WriteByte('/')
		path.WriteString(plain)
	}
	return path.String(), nil
}

// serveRaw answers GET, HEAD, PUT and DELETE of one path with raw bytes.
func (k *kv) serveRaw(w http.ResponseWriter, r *http.Request) error {
	path, err := rawPath(r.URL)
	if err != nil {
		return err
	}
	if r.URL.RawQuery != "" {
		return badRequest("no query parameters are known here") // a typing error must not be a plain write
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return k.rawGet(w, r, path)
	case http.MethodPut:
		return k.rawPut(w, r, path)
	case http.MethodDelete:
		if err := checkWritable(path); err != nil {
			return err
		}
		op := crdtstore.Op{Path: path, Delete: true, MustExist: true}
		if op.IfVersion, err = rawPrecondition(r); err != nil {
			return err
		}
		return k.rawWrite(w, r, op)
	}
	w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
	return badRequest("method %s is not known here: GET, PUT and DELETE are", r.Method)
}

func (k *kv) rawGet(w http.ResponseWriter, r *http.Request, path string) error {
	item, err := k.get(r.Context(), path, r.Method == http.MethodGet)
	if err != nil {
		return err
	}
	content := k.store.Content(&item)
	defer content.Close() //nolint:errcheck // read only
	var l labels
	l.policy = k.store.Policy()
	e := l.entry(&item)
	h := w.Header()
	h.Set("ETag", `"`+e.GetVersion()+`"`)
	h.Set("Last-Modified", item.Version.HLC.Time().Format(http.TimeFormat))
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Syncagent-Version", e.GetVersion())
	h.Set("X-Syncagent-Author", e.GetAuthor())
	if e.GetAlias() != "" {
		h.Set("X-Syncagent-Alias", e.GetAlias())
	}
	if e.Mode != nil {
		h.Set("X-Syncagent-Mode", fmt.Sprintf("%04o", e.GetMode()))
	}
	if !item.Expires.IsZero() {
		h.Set("X-Syncagent-Expires", item.Expires.UTC().Format(time.RFC3339Nano))
	}
	h.Set("Content-Length", strconv.FormatInt(item.Size, 10))
	if r.Method == http.MethodGet {
		if _, err := io.Copy(pieces{ctx: r.Context(), Writer: w}, content); err != nil {
			return errors.Join(errCutOff, err)
		}
	}
	return nil
}

// errCutOff says that an answer had begun when it failed: only a connection that breaks can still tell the caller.
var errCutOff = errors.New("answer is cut off")

func (k *kv) rawPut(w http.ResponseWriter, r *http.Request, path string) error {
	if err := checkWritable(path); err != nil {
		return err
	}
	op := crdtstore.Op{Path: path}
	var err error
	if op.IfVersion, err = rawPrecondition(r); err != nil {
		return err
	}
	if mode := r.Header.Get("X-Syncagent-Mode"); mode != "" {
		var m FileMode
		if err := m.UnmarshalText([]byte(mode)); err != nil {
			return badRequest("X-Syncagent-Mode: %v", err)
		}
		op.Mode = uint16(m)
	}
	if ttl := r.Header.Get("X-Syncagent-TTL"); ttl != "" {
		d, err := ParseDuration(ttl)
		if err != nil || d <= 0 {
			return badRequest("X-Syncagent-TTL: want a duration such as 90s or 7d, not %q", ttl)
		}
		op.Expires = k.now().Add(d)
	}
	if err := k.mayCommit(r.Context(), []crdtstore.Op{op}); err != nil {
		return err // before the value comes
	}
	done, err := k.take(r.Context(), &op, pieces{ctx: r.Context(), Reader: r.Body})
	if err != nil {
		return err
	}
	defer done()
	return k.rawWrite(w, r, op)
}

func (k *kv) rawWrite(w http.ResponseWriter, r *http.Request, op crdtstore.Op) error {
	v, err := k.commit(r.Context(), []crdtstore.Op{op})
	if err != nil {
		return err
	}
	if !op.Delete {
		w.Header().Set("ETag", `"`+v.String()+`"`)
	}
	w.Header().Set("X-Syncagent-Version", v.String())
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// rawPrecondition reads If-Match with one version, and If-None-Match: * (RFC 9110, section 13).
func rawPrecondition(r *http.Request) (*record.Version, error) {
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	if none != "" && none != "*" {
		return nil, badRequest("If-None-Match: only * is known")
	}
	if match != "" {
		version, ok := strings.CutPrefix(match, `"`)
		version, ok2 := strings.CutSuffix(version, `"`)
		if !ok || !ok2 || version == "" {
			return nil, badRequest("If-Match: want one version in quotes, as in ETag")
		}
		match = version
	}
	return preconditionOf(match, none == "*")
}
