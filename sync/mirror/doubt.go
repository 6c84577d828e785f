package mirror

import (
	"context"
	"fmt"
	"slices"

	"syncagent/crdtstore/record"
)

// doubt takes out of a plan what would remove a file, or bring it back to an earlier version, if the source has never
// heard of the version that the file has: it is behind, after its store was lost or went back to a copy of it, or another
// agent was asked. They are looked at again until it knows better, unless somebody agreed to the removal.
func (s *session) doubt(ctx context.Context, p *plan, confirmed map[string]struct{}) error {
	versions := map[string]record.Version{}
	for _, i := range slices.Concat(p.clear, p.remove, p.write) {
		if _, ok := confirmed[i.path]; !ok && i.goesBack() {
			versions[s.want.absolute(i.path)] = i.base.version
		}
	}
	if len(versions) == 0 {
		return nil
	}
	unknown, err := s.m.src.Unknown(ctx, versions)
	if err != nil {
		return fmt.Errorf("ask for what is gone below %s: %w", s.m.o.Prefix, err)
	}
	late := func(i item) bool {
		_, ok := unknown[s.want.absolute(i.path)]
		if ok {
			delete(s.dirty, i.path)
			s.failing[i.path] = "the store does not know of the version in this file: it stays until that has caught up"
		}
		return ok
	}
	p.clear, p.remove, p.write = slices.DeleteFunc(p.clear, late), slices.DeleteFunc(p.remove, late), slices.DeleteFunc(p.write, late)
	return nil
}

// goesBack tells that the source shows less than what the mirror put there, or an earlier version in place of it.
func (i *item) goesBack() bool {
	return i.based && (!i.wanted || i.have.same && i.want.version.Compare(i.base.version) < 0)
}
