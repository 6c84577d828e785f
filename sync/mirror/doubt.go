package mirror

import (
	"context"
	"fmt"
	"slices"

	"syncagent/crdtstore/record"
)

// doubt takes removals out of a plan if the source has never heard of what would be removed: it is behind, after its store
// was lost say, or another agent was asked. They are looked at again until it knows better, unless somebody agreed to them.
func (s *session) doubt(ctx context.Context, p *plan, confirmed map[string]struct{}) error {
	versions := map[string]record.Version{}
	for _, i := range slices.Concat(p.clear, p.remove) {
		if _, ok := confirmed[i.path]; !ok {
			versions[s.want.absolute(i.path)] = i.base.version
		}
	}
	if len(versions) == 0 {
		return nil
	}
	unknown, err := s.m.src.Unknown(ctx, versions)
	if err != nil {
		return fmt.Errorf("ask for what is removed below %s: %w", s.m.o.Prefix, err)
	}
	late := func(i item) bool {
		_, ok := unknown[s.want.absolute(i.path)]
		if ok {
			delete(s.dirty, i.path)
			s.failing[i.path] = "the store does not know of this file: it stays until that has caught up"
		}
		return ok
	}
	p.clear, p.remove = slices.DeleteFunc(p.clear, late), slices.DeleteFunc(p.remove, late)
	return nil
}
