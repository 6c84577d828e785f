package mirror

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"syncagent/crdtstore/record"
)

const (
	// settleTime is how long a local file must have been left alone before it is put.
	settleTime = 200 * time.Millisecond
	// maxPasses is how often Once looks again while files are being written and the source moves on.
	maxPasses = 50
	maxEdits  = 1000    // in one write
	maxBytes  = 8 << 20 // of values in one write, before the last one
)

// edit is a local change on its way into the source.
type edit struct {
	item item
	Edit
	large bool // the content goes as a stream, and the edit alone
	base  base // without its version
}

// exchange makes local changes part of the source.
func (s *session) exchange(ctx context.Context, p *plan) error {
	for _, i := range p.clash {
		if err := s.clash(ctx, i, p); err != nil {
			return err
		}
	}
	adopted, err := s.sameContent(ctx, unknown(p.push))
	if err != nil {
		return err
	}
	var batch []edit
	size := 0
	flush := func() error {
		err := s.write(ctx, batch)
		batch, size = nil, 0
		return err
	}
	for _, i := range slices.Concat(p.push, p.drop) {
		_, same := adopted[i.path]
		e, ok, err := s.edit(i)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if same && (!s.m.o.PreserveMode || i.have.mode == i.want.mode) {
			e.base.version = i.want.version
			if err := s.agree([]edit{e}); err != nil {
				return err
			}
			continue
		}
		if e.large {
			if err := errors.Join(flush(), s.write(ctx, []edit{e})); err != nil {
				return err
			}
			continue
		}
		batch = append(batch, e)
		if size += len(e.Value); len(batch) == maxEdits || size >= maxBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// unknown gives the items that both sides have and of which the mirror has no memory.
func unknown(items []item) []item {
	return slices.DeleteFunc(slices.Clone(items), func(i item) bool { return i.based || !i.wanted })
}

// edit makes an edit of an item, with the file's content; not ok: the path fails, or has to wait.
func (s *session) edit(i item) (e edit, ok bool, err error) {
	abs := s.want.absolute(i.path)
	e = edit{item: i, Edit: Edit{Path: abs}}
	if i.wanted {
		e.Shown = i.want.version
	}
	if err := record.CheckPath(abs); err != nil {
		return e, false, s.fault(i.path, err)
	}
	if record.Reserved(abs) {
		return e, false, s.fault(i.path, errReserved)
	}
	if why := refuse(i.path); why != "" {
		return e, false, s.fault(i.path, errors.New(why))
	}
	if i.have.kind != regular {
		e.Delete = true
		return e, true, nil
	}
	// A change in the future is one of the clock.
	if age := time.Since(time.Unix(0, i.have.print.changed)); age < s.m.settle && age > -s.m.settle {
		s.young[i.path] = struct{}{}
		return e, false, nil
	}
	if e.large = i.have.size > record.MaxInlineValue; e.large {
		e.base, err = s.tree.sum(i.path, i.have.print)
	} else if e.Value, err = s.tree.read(i.path, i.have.print); err == nil {
		e.base = base{hash: sha256.Sum256(e.Value), size: int64(len(e.Value))}
	}
	if err != nil {
		return e, false, s.unsteady(i, err)
	}
	e.Mode = i.want.given
	if s.m.o.PreserveMode {
		e.Mode = uint16(i.have.mode)
	}
	return e, true, nil
}

// unsteady deals with a file that could not be read whole.
func (s *session) unsteady(i item, err error) error {
	if errors.Is(err, errSwapped) || errors.Is(err, fs.ErrNotExist) {
		s.young[i.path] = struct{}{} // it is changing at this moment
		return nil
	}
	return s.fault(i.path, err)
}

// write puts edits into the source: all at once, or one by one if one of them is not possible.
func (s *session) write(ctx context.Context, batch []edit) error {
	if len(batch) == 0 {
		return nil
	}
	edits := make([]Edit, len(batch))
	for n := range batch {
		edits[n] = batch[n].Edit
	}
	var content *steady
	if batch[0].large {
		var err error
		if content, err = s.tree.steady(batch[0].item.path, batch[0].item.have.print); err != nil {
			return s.unsteady(batch[0].item, err)
		}
		defer content.Close() //nolint:errcheck // read only
		edits[0].Content = content
	}
	v, err := s.m.sink.Write(ctx, edits)
	switch {
	case err != nil && content != nil && content.failed != nil:
		return s.unsteady(batch[0].item, content.failed)
	case err == nil:
		for n := range batch {
			batch[n].base.version = v
			batch[n].base.version.Index += uint16(n)
		}
		return s.agree(batch)
	case !errors.Is(err, ErrConflict) && !errors.Is(err, ErrRefused):
		return fmt.Errorf("write %s: %w", s.m.o.Prefix, err)
	case len(batch) > 1:
		for _, e := range batch {
			if err := s.write(ctx, []edit{e}); err != nil {
				return err
			}
		}
	case errors.Is(err, ErrConflict):
		s.moved++ // the change that tells of it comes, and the path is looked at again
	default:
		return s.fault(batch[0].item.path, err)
	}
	return nil
}

// agree notes that source and directory have the same now.
func (s *session) agree(batch []edit) error {
	var n line
	o := outcome{Seq: s.j.nextSeq()}
	for _, e := range batch {
		if e.Delete {
			o.Gone = append(o.Gone, goneFile{Path: e.item.path})
		} else {
			n.Staged = append(n.Staged, stage(e.item.path, "", e.base))
		}
	}
	n.Done = &o
	if err := s.j.append(n); err != nil {
		return err
	}
	for _, e := range batch {
		if e.Delete {
			s.want.remove(e.Path, func(string) {})
		} else {
			s.want.put(File{
				Path: e.Path, Version: e.base.version, Mode: e.Mode, Size: e.base.size, Expires: e.Expires,
			}, func(string) {})
		}
		delete(s.dirty, e.item.path)
	}
	return nil
}

// clash settles two edits of one path. The later one wins; nothing is lost: what the source had stays in its history,
// and a local edit that loses goes there, too, or into a file of its own.
func (s *session) clash(ctx context.Context, i item, p *plan) error {
	same, err := s.sameContent(ctx, []item{i})
	if err != nil {
		return err
	}
	if _, yes := same[i.path]; yes || i.localWins() {
		p.push = append(p.push, item{path: i.path, want: i.want, wanted: true, have: i.have, changed: i.changed})
		return nil
	}
	if s.m.o.ConflictCopy != "" {
		return s.setAside(i, p)
	}
	e, ok, err := s.edit(i)
	if err != nil || !ok {
		return err
	}
	abs, found := s.want.absolute(i.path), false
	err = s.m.src.Fetch(ctx, []string{abs}, func(f File, r io.Reader) error {
		if found = f.Path == abs && f.Version == i.want.version; !found {
			return nil
		}
		return s.yield(ctx, e, f, r)
	})
	if err != nil {
		return fmt.Errorf("fetch files: %w", err)
	}
	if !found {
		s.moved++
	}
	return nil
}

// yield makes a local edit a part of the history of its path. The source forgets nothing that it has shown: so it shows
// ours for a moment, and then its own again.
func (s *session) yield(ctx context.Context, e edit, f File, r io.Reader) error {
	i := e.item
	theirs := Edit{Path: f.Path, Mode: f.Mode, Expires: f.Expires}
	if f.Size > record.MaxInlineValue {
		theirs.Content = r
	} else if value, err := io.ReadAll(r); err == nil {
		theirs.Value = value
	} else {
		return s.fault(i.path, err)
	}
	if err := s.write(ctx, []edit{e}); err != nil {
		return err
	}
	mine, based := s.j.at(i.path)
	if !based || mine.hash != e.base.hash {
		return nil // it was not written
	}
	theirs.Shown = mine.version
	v, err := s.m.sink.Write(ctx, []Edit{theirs})
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrRefused) {
		return nil // somebody wrote after us: that is what counts
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", theirs.Path, err)
	}
	s.want.put(File{Path: theirs.Path, Version: v, Mode: theirs.Mode, Size: f.Size, Expires: theirs.Expires}, s.mark)
	s.young[i.path] = struct{}{} // look again, and take it
	s.m.o.Log.Info("two edits of a path, the later one is the source's", "dir", s.m.o.Dir, "path", theirs.Path)
	return nil
}

// setAside gives a local file that lost a name of its own, under which it is put; the source's takes its place.
func (s *session) setAside(i item, p *plan) error {
	aside := copyName(i.path, s.m.o.ConflictCopy, i.have.wrote)
	d, err := s.tree.open(parent(i.path))
	if err == nil {
		if _, err = d.Lstat(name(aside)); err == nil {
			return s.fault(i.path, fmt.Errorf("two edits, and %s is taken", name(aside)))
		}
		err = s.tree.link(i.path, aside)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.fault(i.path, err)
	}
	s.young[aside] = struct{}{}
	if err := s.tree.observe(&i); err != nil { // the link changed its time
		return s.fault(i.path, err)
	}
	p.write = append(p.write, i)
	s.m.o.Log.Info("two edits of a path, the earlier one is kept as a copy", "dir", s.m.o.Dir, "path", s.want.absolute(i.path))
	return nil
}

// copyName gives a/b.conf as a/b.conflict-HOST-20060102T150405.conf.
func copyName(rel, host string, at time.Time) string {
	ext := path.Ext(name(rel))
	if ext == name(rel) { // a dot file
		ext = ""
	}
	host = strings.Map(func(r rune) rune {
		if r == '/' || r < 0x20 {
			return '-'
		}
		return r
	}, host)
	return strings.TrimSuffix(rel, ext) + ".conflict-" + host + "-" + at.UTC().Format("20060102T150405.000") + ext
}

func (s *session) driftReason(i item) string {
	switch {
	case s.m.o.Mode == ModePull:
		return "it was changed on this host"
	case i.have.kind == other:
		return "it is no regular file"
	}
	return "it was changed in the store by somebody else"
}
