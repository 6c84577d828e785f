package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"syncagent/sync/trigger"
)

// Directories in the root of a mirror whose changes are checked or tried.
const (
	nextDir = ours + "-next" // the files as they would be
	prevDir = ours + "-prev" // what a change on trial replaced
)

// guarded tells that changes are checked before they go live, or tried afterwards.
func (m *Mirror) guarded() bool { return len(m.o.Check)+len(m.o.Trial) > 0 }

// whole tells that the changes of a pass are one, which is staged completely.
func (m *Mirror) whole() bool { return m.guarded() || m.swaps() }

// applyGuarded does what the plan says as one change. Nothing of it is visible before everything is staged and checked.
func (s *session) applyGuarded(ctx context.Context, p plan, strict bool) error {
	if len(p.write)+len(p.clear)+len(p.remove) == 0 {
		return errors.Join(s.tidy(p.none), s.removeFiles(nil, p.forget))
	}
	if err := s.top.clearDir(nextDir); err != nil {
		return err
	}
	defer s.clearNext()
	if err := s.tidy(p.none); err != nil { // what is idle since a crash would be in the way
		return err
	}
	var err error
	if p.write, err = s.possible(p); err != nil {
		return err
	}
	files, err := s.stageAll(ctx, p.write, strict)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(files, func(f staged) bool { return f.temp != "" }) && len(p.clear)+len(p.remove) == 0 {
		return s.replace(p, files) // nothing that anybody could see changes
	}
	if err := s.completeNext(p, files); err != nil {
		return fmt.Errorf("stage unchanged files: %w", err)
	}
	if err := s.check(ctx, p); err != nil {
		s.reject(p, err)
		return nil
	}
	if err := s.keepOld(p, files); err != nil {
		return err
	}
	if err := s.replace(p, files); err != nil {
		return err
	}
	if trial, _ := s.j.onTrial(); len(trial) == 0 {
		return nil
	}
	if err := s.j.append(line{Live: true}); err != nil {
		return err
	}
	return s.concludeTrial(ctx)
}

// possible gives the writes that nothing is in the way of, once p.clear is gone.
func (s *session) possible(p plan) (able []item, err error) {
	if s.live != nil {
		stay, err := s.staying(p)
		if err != nil {
			return nil, err
		}
		return s.fitting(p.write, stay)
	}
	clear := make(map[string]struct{}, len(p.clear))
	for _, i := range p.clear {
		clear[i.path] = struct{}{}
	}
	for _, i := range p.write {
		err := s.blocked(i, clear)
		if err == nil {
			able = append(able, i)
		} else if general := s.fault(i.path, err); general != nil {
			return nil, general
		}
	}
	return able, nil
}

// replace makes the change visible.
func (s *session) replace(p plan, files []staged) error {
	if err := s.removeFiles(p.clear, nil); err != nil {
		return err
	}
	items := make([]item, 0, len(files))
	for _, f := range files {
		items = append(items, f.item)
	}
	able, err := s.makeDirs(items)
	if err != nil {
		return err
	}
	paths := make(map[string]struct{}, len(able))
	for _, i := range able {
		paths[i.path] = struct{}{}
	}
	files = slices.DeleteFunc(files, func(f staged) bool { _, ok := paths[f.item.path]; return !ok })
	if len(files) > 0 {
		if err := s.place(files); err != nil {
			return err
		}
	}
	return s.removeFiles(p.remove, p.forget)
}

func (s *session) clearNext() {
	if err := s.top.clearDir(nextDir); err != nil {
		s.m.o.Log.Warn("cannot remove staged files", "dir", s.m.o.Dir, "error", err)
	}
}

// check runs the mirror's check on the directory as it would be.
func (s *session) check(ctx context.Context, p plan) error {
	if len(s.m.o.Check) == 0 {
		return nil
	}
	r := s.command(s.m.o.Check).Run(ctx, s.changedPaths(p), s.facts(p, "SYNCAGENT_STAGED="+s.m.o.Dir+"/"+nextDir)...)
	if r.Err == nil {
		return nil
	}
	s.m.o.Log.Warn("check refused a change", "dir", s.m.o.Dir, "exit", r.Exit, "error", r.Err, "took", r.Took)
	err := fmt.Errorf("the check refused it: %w", r.Err)
	s.m.refusal = refusal{err.Error(), tail(r.Output)}
	return err
}

// completeNext links what does not change into the directory of what would be.
func (s *session) completeNext(p plan, files []staged) error {
	if len(s.m.o.Check) == 0 {
		return nil // nobody looks
	}
	leave := map[string]struct{}{}
	for _, list := range [][]item{p.clear, p.remove, p.forget} {
		for _, i := range list {
			leave[i.path] = struct{}{}
		}
	}
	for _, f := range files {
		if f.temp != "" {
			leave[f.item.path] = struct{}{}
		}
	}
	var stay []string
	s.j.eachFile(func(path string) {
		if _, no := leave[path]; !no {
			stay = append(stay, path)
		}
	})
	return s.linkNext("", stay)
}

// linkNext links files into the directory of what would be. They lie below from in the root; those that are gone are
// left out.
func (s *session) linkNext(from string, paths []string) error {
	if err := s.top.makeDirs(nextDir); err != nil {
		return err
	}
	for _, path := range paths {
		if err := s.top.makeDirs(parent(nextDir + "/" + path)); err != nil {
			return err
		}
		if err := s.top.link(from+path, nextDir+"/"+path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// reject leaves everything that the plan touches as it is.
func (s *session) reject(p plan, why error) {
	for _, list := range [][]item{p.clear, p.write, p.remove, p.forget} {
		for _, i := range list {
			delete(s.dirty, i.path)
			s.failing[i.path] = why.Error()
		}
	}
}

func (s *session) command(args []string) trigger.Command {
	return trigger.Command{Args: args, Timeout: s.m.o.Timeout}
}

// changedPaths gives the store's paths that a plan touches in ascending order, a line each.
func (s *session) changedPaths(p plan) []byte {
	var paths []string
	for _, i := range slices.Concat(p.clear, p.write, p.remove) {
		paths = append(paths, s.want.absolute(i.path)+"\n")
	}
	slices.Sort(paths)
	return []byte(strings.Join(paths, ""))
}

// facts gives the environment of a command.
func (s *session) facts(p plan, more ...string) []string {
	return append(more, "SYNCAGENT_PREFIX="+s.m.o.Prefix, "SYNCAGENT_DIR="+s.m.o.Dir,
		"SYNCAGENT_CHANGED="+strconv.Itoa(len(p.clear)+len(p.write)+len(p.remove)))
}

// refusal is why a command said no to a change, and what it printed. That may be anything, so it is kept apart: reasons
// come into logs and alarms, and are told to other hosts.
type refusal struct{ why, output string }

// output is what the command printed that keeps paths from being as wanted.
func (s *session) output() string {
	for _, why := range s.failing {
		if why == s.m.refusal.why {
			return s.m.refusal.output
		}
	}
	return ""
}

// tail gives the end of a command's output, fit for a status.
func tail(output []byte) string {
	const most = 1000
	return strings.TrimSpace(strings.ToValidUTF8(string(output[max(0, len(output)-most):]), "?"))
}
