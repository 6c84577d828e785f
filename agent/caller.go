package agent

import (
	"context"
	"fmt"

	"syncagent/crdtstore"
)

// caller is who made a request of the API, and what it may do there. Every handler asks it before it does or tells
// anything. It only narrows: what this agent itself may not read or write, the store keeps from every caller.
type caller struct {
	name   string // for the log
	rights rights
	// control: it may steer the agent, and see all that the agent tells of itself, names of paths among it.
	control bool
	// policy: it may see the policy texts and hand in another one, which admins have signed.
	policy bool
	// mark goes at the end of the cursors that it is given. One with another mark was given out under other rights, so
	// that what was missed since cannot be told.
	mark string
}

// rights are what a caller may read and write, by the policy in force.
type rights interface {
	reads(p policy, path string) bool
	writes(p policy, path string) bool
}

// everything are the rights of who acts as this agent: those of the agent.
type everything struct{}

func (everything) reads(policy, string) bool  { return true }
func (everything) writes(policy, string) bool { return true }

// nothing are the rights of a request that came through no door.
type nothing struct{}

func (nothing) reads(policy, string) bool  { return false }
func (nothing) writes(policy, string) bool { return false }

type callerKey struct{}

func withCaller(ctx context.Context, c *caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf gives who made the request that ctx belongs to. Without one it is somebody who may do nothing.
func callerOf(ctx context.Context) *caller {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return c
	}
	return &caller{name: "nobody", rights: nothing{}}
}

// same tells whether two callers are one, with rights from the same lines.
func (c *caller) same(o *caller) bool {
	return c.name == o.name && c.mark == o.mark && c.control == o.control && c.policy == o.policy
}

// mayControl refuses who may not steer the agent; what is for the message.
func (c *caller) mayControl(what string) error {
	if c.control {
		return nil
	}
	return &Error{Code: CodeDenied, Err: crdtstore.ErrDenied, Message: what + " is for callers that act as this agent",
		Hint: "do it on the agent's host, by its socket"}
}

// mayKnowPolicy refuses who may not see the policy.
func (c *caller) mayKnowPolicy() error {
	if c.policy {
		return nil
	}
	return &Error{Code: CodeDenied, Err: crdtstore.ErrDenied, Message: "the policy is for identities that it names, and callers that act as this agent",
		Hint: "do it on the agent's host, by its socket, or with a certificate of an identity key"}
}

// mayKnowAll refuses who may not read every path: what it asks for tells of any. Without a policy that is nobody, and
// then whoever steers the agent may know, to give it one.
func (c *caller) mayKnowAll(p policy, what string) error {
	if p == nil && c.control || p != nil && c.rights.reads(p, "/") {
		return nil
	}
	return &Error{Code: CodeDenied, Err: crdtstore.ErrDenied, Message: what + " tells of all paths, and is for callers that may read /",
		Hint: "do it on the agent's host, by its socket"}
}

// mayWrite judges operations by the caller's rights; the store judges them by this agent's. A condition tells what is
// there, so it needs the right to read as well.
func (c *caller) mayWrite(p policy, ops []crdtstore.Op) error {
	if p == nil {
		return crdtstore.ErrNoPolicy
	}
	for i := range ops {
		op := &ops[i]
		if !c.rights.writes(p, op.Path) {
			return fmt.Errorf("write %s: %w", op.Path, crdtstore.ErrDenied)
		}
		if (op.IfVersion != nil || op.MustExist) && !c.rights.reads(p, op.Path) {
			return &Error{Code: CodeDenied, Err: crdtstore.ErrDenied,
				Message: fmt.Sprintf("write %s: a condition needs the right to read the path", op.Path),
				Hint:    "leave the condition out; for a delete that is rm -f, allow_missing in the API"}
		}
	}
	return nil
}
