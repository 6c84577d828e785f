package mirror

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// CheckDirs refuses mirrors that would get into each other's way, or into that of the agent: roots of which one contains
// another, and roots that contain, or lie in, one of the taken files and directories (data directory, trigger directories,
// config file, keys). Symbolic links are resolved as far as the paths exist. All faults are reported at once.
func CheckDirs(roots, taken []string) error {
	var faults []error
	real := make([]string, len(roots))
	for i, r := range roots {
		var err error
		if real[i], err = resolve(r); err != nil {
			faults = append(faults, err)
			continue
		}
		if real[i] == "/" {
			faults = append(faults, fmt.Errorf("mirror %s: the root of the file system cannot be a mirror", r))
		}
		for k := range i {
			if real[k] != "" && overlap(real[i], real[k]) {
				faults = append(faults, fmt.Errorf("mirror %s overlaps with mirror %s", r, roots[k]))
			}
		}
	}
	for _, t := range taken {
		at, err := resolve(t)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for i, r := range real {
			if r != "" && overlap(r, at) {
				faults = append(faults, fmt.Errorf("mirror %s overlaps with %s, which the agent uses", roots[i], t))
			}
		}
	}
	return errors.Join(faults...)
}

// overlap tells whether one of two clean absolute paths is or contains the other.
func overlap(a, b string) bool { return contains(a, b) || contains(b, a) }

func contains(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// resolve makes a path absolute and follows the symbolic links in the part of it that exists.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for head, tail := path, ""; ; {
		if real, err := filepath.EvalSymlinks(head); err == nil {
			return filepath.Join(real, tail), nil
		}
		if head == filepath.Dir(head) {
			return path, nil
		}
		head, tail = filepath.Dir(head), filepath.Join(filepath.Base(head), tail)
	}
}
