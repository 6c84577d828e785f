package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"syncagent/crdtstore"
	"syncagent/crdtstore/record"
)

// LocalRuleConfig says what a user of this host may do by the socket. Rules and As exclude each other.
type LocalRuleConfig struct {
	User  string   `yaml:"user"`  // name or number; this or Group
	Group string   `yaml:"group"` // name or number
	Rules []string `yaml:"rules"` // "/PATH read", "/PATH write", "/PATH rw" or "control"
	As    string   `yaml:"as"`    // alias in the policy: may what that identity may
}

// controlRule lets a local user steer the agent.
const controlRule = "control"

// localRule is one entry of local_rules.
type localRule struct {
	user, group int // -1: not by this
	control     bool
	paths       []pathRule
	as          string
	text        string // for marks: equal when the rights are
}

type pathRule struct {
	prefix      string
	read, write bool
}

func parsePathRule(text string) (pathRule, error) {
	path, op, ok := strings.Cut(text, " ")
	op = strings.TrimSpace(op)
	r := pathRule{read: op == "read" || op == "rw", write: op == "write" || op == "rw"}
	if !ok || !r.read && !r.write {
		return r, fmt.Errorf("want \"/PATH read\", \"/PATH write\", \"/PATH rw\" or \"control\", not %q", text)
	}
	var err error
	r.prefix, err = record.CleanPrefix(path)
	return r, err
}

// localRule reads an entry that Check has seen.
func (c *LocalRuleConfig) localRule() (localRule, error) {
	r := localRule{user: -1, group: -1, as: c.As, text: fmt.Sprintf("%q as %q", c.Rules, c.As)}
	var err error
	if c.User != "" {
		r.user, err = lookupUser(c.User)
	} else {
		r.group, err = lookupGroup(c.Group)
	}
	if err != nil {
		return r, err
	}
	for _, text := range c.Rules {
		if text == controlRule {
			r.control = true
			continue
		}
		p, err := parsePathRule(text)
		if err != nil {
			return r, err
		}
		r.paths = append(r.paths, p)
	}
	return r, nil
}

func localRules(list []LocalRuleConfig) ([]localRule, error) {
	rules := make([]localRule, len(list))
	for i := range list {
		var err error
		if rules[i], err = list[i].localRule(); err != nil {
			return nil, &Error{Code: CodeBadConfig, Message: fmt.Sprintf("local_rules[%d]: %v", i, err), Err: err}
		}
	}
	return rules, nil
}

// localCaller tells who somebody on the socket is. Without rules it acts as this agent. So do root and the agent's own
// user in any case: they can read the store and the key.
func localCaller(rules []localRule, own uint32, of credentials) (*caller, error) {
	name := fmt.Sprintf("uid %d", of.uid)
	if len(rules) == 0 || of.uid == 0 || of.uid == own {
		return &caller{name: name, rights: everything{}, control: true, policy: true}, nil
	}
	var mine localRights
	control, text := false, ""
	for _, r := range rules {
		if int64(r.user) != int64(of.uid) && !slices.ContainsFunc(of.groups, func(g uint32) bool { return int64(r.group) == int64(g) }) {
			continue
		}
		mine = append(mine, r)
		control = control || r.control
		text += r.text + "\n"
	}
	if len(mine) == 0 {
		return nil, &Error{Code: CodeDenied, Err: crdtstore.ErrDenied, Message: fmt.Sprintf("no local rule is for user %d or its groups", of.uid),
			Hint: "local_rules in the agent's configuration says who may use its socket"}
	}
	return &caller{name: name, rights: mine, control: control, policy: control, mark: markOf(text)}, nil
}

// markOf makes the mark of rights from a text that says what they are.
func markOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

// localRights are those of all the rules that are for a user.
type localRights []localRule

func (l localRights) reads(p policy, path string) bool {
	return slices.ContainsFunc(l, func(r localRule) bool {
		if k, ok := p.KeyOf(r.as); ok && p.MayReadPath(k, path) {
			return true
		}
		return slices.ContainsFunc(r.paths, func(x pathRule) bool { return x.read && record.Covers(x.prefix, path) })
	})
}

func (l localRights) writes(p policy, path string) bool {
	return slices.ContainsFunc(l, func(r localRule) bool {
		if k, ok := p.KeyOf(r.as); ok && p.MayWritePath(k, path) {
			return true
		}
		return slices.ContainsFunc(r.paths, func(x pathRule) bool { return x.write && record.Covers(x.prefix, path) })
	})
}

func (c *Config) checkLocalRules(k *check) {
	for i := range c.LocalRules {
		r, key := &c.LocalRules[i], fmt.Sprintf("local_rules[%d]", i)
		switch {
		case (r.User == "") == (r.Group == ""):
			k.add(key, "want either a user or a group")
		case r.User != "":
			if _, err := lookupUser(r.User); err != nil {
				k.add(key+".user", "%v", err)
			}
		default:
			if _, err := lookupGroup(r.Group); err != nil {
				k.add(key+".group", "%v", err)
			}
		}
		if (len(r.Rules) == 0) == (r.As == "") {
			k.add(key, "want either rules, or as with the alias of an identity")
		}
		for j, text := range r.Rules {
			if text == controlRule {
				continue
			}
			if _, err := parsePathRule(text); err != nil {
				k.add(fmt.Sprintf("%s.rules[%d]", key, j), "%v", err)
			}
		}
	}
}
