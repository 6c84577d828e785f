package acl

import (
	"slices"
	"strings"

	"syncagent/crdtstore/record"
)

// Compile makes the policy that judges. Rules, names and kept versions come from the text in force alone; a revoke
// line counts in every text, whichever is in force. All texts must have passed SignedBy. Without a text in force, or
// with one for another network, it gives nil, which denies everything.
func Compile(network record.NetworkID, inForce *Signed, all []*Signed) *Policy {
	if inForce == nil || inForce.Network != network {
		return nil
	}
	files := []*File{inForce.File}
	for _, s := range all {
		if s.Network == network {
			files = append(files, s.File)
		}
	}
	p := compile(network, inForce.File, files)
	p.hash = inForce.Hash
	return p
}

// CompileFile makes a policy of a text that nobody has signed yet, for tools that look at what it would mean.
func CompileFile(network record.NetworkID, f *File) *Policy {
	return compile(network, f, []*File{f})
}

func compile(network record.NetworkID, f *File, all []*File) *Policy {
	p := &Policy{
		file:    f,
		sys:     network.TagOf("/.sys"),
		byPath:  make(map[string]*node, len(f.Rules)),
		keys:    make(map[record.PublicKey]*principal, len(f.Identities)),
		names:   make(map[string]*principal, len(f.Identities)),
		known:   make(map[record.PublicKey]struct{}, len(f.Identities)),
		revoked: make(map[record.PublicKey]struct{}),
		keeps:   make(map[record.Version]struct{}, len(f.Keeps)),
	}
	for _, text := range all {
		for _, r := range text.Revoked {
			p.revoked[r.Key] = struct{}{}
			p.known[r.Key] = struct{}{}
		}
	}
	for _, k := range f.Former {
		p.known[k.Key] = struct{}{}
	}
	for _, k := range f.Keeps {
		v := k.Version
		if k.Whole {
			v.Index = wholeWrite
		}
		p.keeps[v] = struct{}{}
	}
	c := compiler{Policy: p}
	c.identities()
	c.groupLines()
	for _, r := range f.Rules {
		c.rule(r)
	}
	c.finish(network)
	return p
}

// compiler holds what only the making of a Policy needs.
type compiler struct {
	*Policy
	principals []*principal // by number; identities first
	groups     map[string]uint32
	listed     [][]*principal // by group
	peer       grants
}

func (c *compiler) add(w *principal) *principal {
	w.number = uint32(len(c.principals))
	c.principals = append(c.principals, w)
	c.names[w.alias] = w
	return w
}

func (c *compiler) identities() {
	for _, id := range c.file.Identities {
		_, revoked := c.revoked[id.Key]
		c.keys[id.Key] = c.add(&principal{alias: id.Alias, key: id.Key, identity: true, revoked: revoked, until: forever})
		c.known[id.Key] = struct{}{}
	}
	for _, r := range c.file.Retired {
		c.known[r.Key] = struct{}{}
		if w := c.keys[r.Key]; w != nil {
			w.until = r.Until.UnixMilli()
		}
	}
}

func (c *compiler) groupLines() {
	c.groups = make(map[string]uint32, len(c.file.Groups))
	for _, g := range c.file.Groups {
		number, ok := c.groups[g.Name]
		if !ok {
			number = uint32(len(c.listed))
			c.groups[g.Name] = number
			c.listed = append(c.listed, nil)
		}
		for _, alias := range g.Members {
			if w := c.names[alias]; w != nil {
				w.groups = append(w.groups, number)
				c.listed[number] = append(c.listed[number], w)
			}
		}
	}
	for _, w := range c.principals {
		w.groups = sorted(w.groups)
	}
}

// rule adds one rule to the nodes it is about. {self} becomes one node for each identity that the rule names.
func (c *compiler) rule(r Rule) {
	switch {
	case r.Op == Peer:
		c.grant(&c.peer, r.Subject)
	case hasSelf(r.Path):
		for _, w := range c.named(r.Subject) {
			n := c.node(expandSelf(r.Path, w.alias))
			n.eachOf(r.Op, func(g *grants) { g.single = append(g.single, w.number) })
		}
	default:
		c.node(r.Path).eachOf(r.Op, func(g *grants) { c.grant(g, r.Subject) })
	}
}

func (n *node) eachOf(op Op, do func(*grants)) {
	if op&Read != 0 {
		do(&n.read)
	}
	if op&Write != 0 {
		do(&n.write)
	}
}

func (c *compiler) node(path string) *node {
	if path == "/" {
		return &c.root
	}
	n := c.byPath[path]
	if n == nil {
		n = &node{depth: strings.Count(path, "/")}
		c.byPath[path] = n
	}
	return n
}

// named gives the identities that a subject stands for.
func (c *compiler) named(subject string) []*principal {
	if subject == "*" {
		return c.principals[:len(c.keys)]
	}
	if number, ok := c.groups[subject]; ok {
		return c.listed[number]
	}
	if w := c.names[subject]; w != nil {
		return []*principal{w}
	}
	return nil
}

func (c *compiler) grant(g *grants, subject string) {
	if subject == "*" {
		g.all = true
		return
	}
	if number, ok := c.groups[subject]; ok {
		g.groups = append(g.groups, number)
		return
	}
	w := c.names[subject]
	if w == nil && isExternal(subject) {
		w = c.add(&principal{alias: subject, until: forever})
	}
	if w != nil {
		g.single = append(g.single, w.number)
	}
}

func (c *compiler) finish(network record.NetworkID) {
	c.byTag = make(map[record.Tag]*node, len(c.byPath))
	c.root.sort()
	for path, n := range c.byPath {
		c.byTag[network.TagOf(path)] = n
		n.sort()
	}
	c.peer.sort()
	var members []*principal
	for _, w := range c.principals {
		if w.member = w.identity && w.live() && c.peer.has(w); w.member {
			members = append(members, w)
			c.members = append(c.members, w.key)
		}
	}
	slices.SortFunc(c.members, record.CompareKeys)
	full := make([]bool, len(c.listed))
	for number := range full {
		one := grants{groups: []uint32{uint32(number)}}
		full[number] = one.hasEach(members, nil)
	}
	c.root.everyMember = c.root.read.hasEach(members, full)
	for _, n := range c.byPath {
		n.everyMember = n.read.hasEach(members, full)
	}
}

// hasEach tells whether g has all members; full says which groups do, so that this is quick for most rules.
func (g *grants) hasEach(members []*principal, full []bool) bool {
	if full != nil && slices.ContainsFunc(g.groups, func(number uint32) bool { return full[number] }) {
		return true
	}
	for _, w := range members {
		if !g.has(w) {
			return false
		}
	}
	return true
}

func (n *node) sort() { n.eachOf(Read|Write, (*grants).sort) }

func (g *grants) sort() { g.groups, g.single = sorted(g.groups), sorted(g.single) }

func sorted(s []uint32) []uint32 {
	slices.Sort(s)
	return slices.Compact(s)
}
