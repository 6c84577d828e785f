package mirror

import (
	"io/fs"
	"strings"

	"syncagent/crdtstore/record"
)

// ours is how everything begins that a mirror puts beside the files it mirrors.
const ours = ".syncagent"

// maxName is the longest name of a file in bytes, on the file systems that we know.
const maxName = 255

// want is what the source shows at a path.
type want struct {
	version record.Version
	mode    fs.FileMode // permission bits, resolved
	given   uint16      // as the source has them
}

// wanted is the whole of what the source shows, by path relative to the prefix, without a leading slash. Every method
// that changes it calls dirty for the paths whose fate may have changed.
//
// A path that has other paths below it cannot be a file. The directory wins, on every host: so a write can take away
// one file, and never a whole tree. Such a path counts as not wanted, and is reported.
type wanted struct {
	prefix   string
	mode     fs.FileMode // of files that bring none
	filter   *filter
	files    map[string]want
	below    map[string]int      // directory -> number of files in it and below
	shadowed map[string]struct{} // files that cannot be, since there are paths below them
	refused  map[string]string   // path -> why no file can have this name
}

func newWanted(prefix string, mode fs.FileMode, f *filter) *wanted {
	return &wanted{
		prefix: prefix, mode: mode, filter: f,
		files: map[string]want{}, below: map[string]int{}, shadowed: map[string]struct{}{}, refused: map[string]string{},
	}
}

// relative gives the path below the prefix, empty for the prefix itself.
func (w *wanted) relative(path string) string {
	return strings.TrimPrefix(path[min(len(path), len(strings.TrimSuffix(w.prefix, "/"))):], "/")
}

// absolute undoes relative.
func (w *wanted) absolute(rel string) string { return strings.TrimSuffix(w.prefix, "/") + "/" + rel }

// refuse says why no file can have this relative path, or nothing.
func refuse(rel string) string {
	if rel == "" {
		return "it is the prefix itself, which is the directory"
	}
	for seg := range strings.SplitSeq(rel, "/") {
		switch {
		case seg == "" || seg == "." || seg == "..":
			return "it has a segment that is no file name"
		case strings.HasPrefix(seg, ours):
			return "names that begin with " + ours + " are the mirror's own"
		case len(seg) > maxName:
			return "a segment is too long for a file name"
		case strings.ContainsRune(seg, 0):
			return "it contains a NUL byte"
		}
	}
	return ""
}

// put notes that the source shows f. Paths outside the prefix and in the reserved subtree are ignored.
func (w *wanted) put(f File, dirty func(string)) {
	if !record.Covers(w.prefix, f.Path) || record.Reserved(f.Path) {
		return
	}
	rel := w.relative(f.Path)
	if why := refuse(rel); why != "" {
		w.refused[rel] = why
		return
	}
	if !w.filter.takes(rel) {
		return
	}
	mode := fs.FileMode(f.Mode) & fs.ModePerm
	if mode == 0 {
		mode = w.mode
	}
	_, had := w.files[rel]
	w.files[rel] = want{f.Version, mode, f.Mode}
	dirty(rel)
	if !had {
		w.count(rel, 1, dirty)
	}
	w.shade(rel)
}

// remove notes that the source no longer shows the path.
func (w *wanted) remove(path string, dirty func(string)) {
	if !record.Covers(w.prefix, path) {
		return
	}
	rel := w.relative(path)
	delete(w.refused, rel)
	if _, had := w.files[rel]; !had {
		return
	}
	delete(w.files, rel)
	delete(w.shadowed, rel)
	dirty(rel)
	w.count(rel, -1, dirty)
}

// count adds n to all directories above rel. Where the count leaves or reaches 0, the path that has the directory's name
// changes its fate.
func (w *wanted) count(rel string, n int, dirty func(string)) {
	for dir := parent(rel); dir != "."; dir = parent(dir) {
		was := w.below[dir]
		if w.below[dir] = was + n; was+n == 0 {
			delete(w.below, dir)
		}
		if was == 0 || was+n == 0 {
			dirty(dir)
			w.shade(dir)
		}
	}
}

func (w *wanted) shade(rel string) {
	if _, file := w.files[rel]; file && w.below[rel] > 0 {
		w.shadowed[rel] = struct{}{}
	} else {
		delete(w.shadowed, rel)
	}
}

// at gives what is wanted at the relative path; false if there shall be no file.
func (w *wanted) at(rel string) (want, bool) {
	f, ok := w.files[rel]
	return f, ok && w.below[rel] == 0
}

// isDir tells whether files are wanted below the relative path.
func (w *wanted) isDir(rel string) bool { return w.below[rel] > 0 }

// parent gives the directory of a relative path, "." for the root.
func parent(rel string) string {
	if i := strings.LastIndexByte(rel, '/'); i >= 0 {
		return rel[:i]
	}
	return "."
}

// name gives the last segment of a relative path.
func name(rel string) string { return rel[strings.LastIndexByte(rel, '/')+1:] }
