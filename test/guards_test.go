package test

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var takeOut = flag.Bool("guards", false, "take every guard out and require that its attacks succeed; minutes")

// guard is a check that an attack meets, and how it looks when it is taken out.
type guard struct {
	name    string
	file    string // from the top of the repository
	has     string // the guard, as it stands in the file, once
	without string
	attacks string // tests that must fail without it, as for go test -run
	names   string // part of what the failing test prints; empty: any failure will do
}

// guards lists the guards of the security promises. A change that moves one moves its row.
var guards = []guard{
	// What a block brings.
	{"origin's signature", "crdtstore/record/bundle.go", `all := append(make([]signature, 0, 1), signature{u.Origin, bundleContext, u.signedHash(links), u.Sig})`, `all := []signature(nil)`,
		"TestG6_G10_AttacksByBlocks", "origin_forged"},
	{"author's signature", "crdtstore/record/bundle.go", `if w.Sig != nil {`, `if false {`,
		"TestG6_G10_AttacksByBlocks", "author_forged"},
	{"signatures checked together", "crdtstore/ingest.go", `if record.VerifyTogether(s.network, blocks) {`, `if record.VerifyTogether(s.network, blocks) || true {`,
		"TestG6_ForgedAmongOthers", ""},
	{"network in what is signed", "crdtstore/record/signature.go", `b = append(b, network[:]...)
	return append(b, hash[:]...)`, `return append(b, hash[:]...)`,
		"TestG6_G10_AttacksByBlocks", "another_network"},
	{"links in what the origin signs", "crdtstore/record/bundle.go", `base := LinksDigest(links)`, `base := LinksDigest(nil)`,
		"TestG10_WrappedBundleIsRefused", ""},
	{"tags fit the entry's path", "crdtstore/turn.go", `if !(&record.Slot{Entry: s.entry, Tags: s.tags}).Matches(t.s.network, e.Path) {`, `if false {`,
		"TestG6_G10_AttacksByBlocks", "under_the_tags_of_another"},
	{"entry has its ID", "crdtstore/turn.go", `if e, err := record.ParseEntry(data); err == nil && e.ID() == id {`, `if e, err := record.ParseEntry(data); err == nil {`,
		"TestG6_G10_AttacksByBlocks", "as_the_answer_to_a_want"},
	{"rights of the author", "crdtstore/turn.go", `return fault.Planted("anybody-writes") || t.policy.Allowed(s.author, s.tags, s.version)`,
		`return true`, "TestG6_G10_AttacksByBlocks|TestG6_AttacksByPolicies", ""},
	{"time far ahead", "crdtstore/resolve.go", `return v.HLC.Milli() <= r.now+dueAhead.Milliseconds() ||`, `return true ||`,
		"TestG6_G10_AttacksByBlocks", "time_far_ahead"},
	{"segments . and ..", "crdtstore/record/path.go", `case s == "." || s == "..":`, `case false:`,
		"TestG6_G10_AttacksByBlocks", "path_with_"},
	{"empty segments", "crdtstore/record/path.go", `case s == "":`, `case false:`,
		"TestG6_G10_AttacksByBlocks", "empty_segment"},
	{"UTF-8", "crdtstore/record/path.go", `case !utf8.ValidString(path):`, `case !utf8.ValidString(""):`,
		"TestG6_G10_AttacksByBlocks", "not_UTF-8"},
	{"the previous block is known", "crdtstore/record/block.go", `if b.Seq > 1 {`, `if false {`,
		"TestG6_G10_AttacksByBlocks", "predecessor"},
	{"allowance of chains", "crdtstore/allowance.go", `late = opens && !s.allowances.take(from, now)`, `late = opens && !s.allowances.take(from, now) && false`,
		"TestInventedOriginsAreTakenSlowly", ""},
	{"what builds on blocks put off", "crdtstore/allowance.go", `late := p.block != nil && !p.held && buildsOn(p.block, out)`, `late := false`,
		"TestInventedOriginsAreTakenSlowly", ""},
	{"forks are charged", "crdtstore/allowance.go", `return !held, err`, `return held && false, err`,
		"TestForksAndIncarnationsAreCharged", ""},
	{"the largest share gives way", "crdtstore/caches.go", `one.bytes > most.bytes ||`, `one.bytes < most.bytes ||`,
		"TestNobodyPushesOutWhatOthersBrought", ""},
	{"a put is above what lies below the window", "crdtstore/local.go", `if !p.sees(top) {`, `if !p.sees(top) && false {`,
		"TestG3_PutAboveWhatLiesBelowTheWindow", ""},

	// What a policy text brings.
	{"admin's signature", "acl/signed.go", `if slices.Contains(admins, sig.Admin) && sig.Admin.Verify(policyContext, network, s.Hash, sig.Sig) {`,
		`if slices.Contains(admins, sig.Admin) {`, "TestG6_AttacksByPolicies", "changed_under_its_signature"},
	{"pinned admins", "acl/signed.go", `if slices.Contains(admins, sig.Admin) && sig`, `if sig`,
		"TestG6_AttacksByPolicies", "signed_by_a_member"},
	{"highest serial", "acl/signed.go", `if in == nil || s.Serial > in.Serial ||`, `if true ||`,
		"TestG6_AttacksByPolicies", "rollback"},
	{"revocations of all texts", "acl/policy.go", `w != nil && !w.revoked && v.HLC`, `w != nil && v.HLC`,
		"TestG6_AttacksByPolicies|TestG6_G10_AttacksByBlocks", "revo"},
	{"retired keys end", "acl/policy.go", `v.HLC.Milli() <= w.until && `, ``,
		"TestG6_G10_AttacksByBlocks", "retired_key"},
	{"texts with revocations are kept", "crdtstore/policy.go", `if p == in || i <= policiesKept || p.File.Revokes() {`, `if p == in || i <= policiesKept {`,
		"TestG6_AttacksByPolicies", "twelve_policies"},

	// What is asked for.
	{"right to an entry asked for", "crdtstore/serve.go", `case !p.MayRead(reader, s.network.Tags(e.Path)) && !fault.Planted("serve-anybody"):`, `case e == nil && fault.Planted(""):`,
		"TestG7_AttacksByAsking", "by_ID,_as_a_member"},
	{"right to entries that go along", "crdtstore/serve.go", `if !p.MayRead(reader, w.Slots[i].Tags) && !fault.Planted("serve-anybody") {`, `if false {`,
		"TestG7_AttacksByAsking", "by_sync"},
	{"no byte of what is not for us", "crdtstore/turn.go", `if !own && !t.policy.MayRead(t.s.self, s.tags) {`, `if false {`,
		"TestG7_BlindAgentHoldsNoByte", ""},

	// What a client brings.
	{"entries fit a client's write", "crdtstore/relay.go", `if e.ID() != w.Slots[i].Entry || !w.Slots[i].Matches(s.network, e.Path) {`, `if false {`,
		"TestG6_AttacksByClients", "another_entry"},
	{"rights of a client", "crdtstore/relay.go", `if !t.policy.MayWrite(w.Author, w.Slots[i].Tags) || !t.policy.Allowed(w.Author, w.Slots[i].Tags, version) {`, `if false {`,
		"TestG6_AttacksByClients", "outside_of_the_author"},
	{"a client's write wins", "crdtstore/relay.go", `if top != nil && top.version.Compare(version) > 0 {`, `if top != nil && false {`,
		"TestG6_AttacksByClients", "older_than_what_is_shown"},
	{"a client's write is not ahead", "crdtstore/relay.go", `if !rules.due(version) {`, `if false {`,
		"TestG6_AttacksByClients", "from_far_ahead"},
	{"rights of this agent", "crdtstore/local.go", `if !t.policy.MayWrite(t.s.self, tags) {`, `if false {`,
		"TestG6_AttacksByClients", "reserved_path"},

	// Who connects.
	{"strangers are closed", "p2p/gater.go", `if g.standing(p) != stranger || fault.Planted("admit-strangers") {`, `if !fault.Planted("") {`, "TestStrangerIsRefused", ""},
	{"members only on streams", "p2p/stream.go", `if n.gate.standing(s.id) < least {`, `if false {`,
		"TestBootstrapPeerThatIsNoMemberGetsPoliciesOnly", ""},
	{"members' blocks only on the topic", "p2p/topic.go", `if !rights.Member(b.Origin) {`, `if !rights.Member(b.Origin) && false {`, "TestTopicCarriesBlocksOfMembersOnly", "a stranger's block came by the topic"},
	{"one answer at a time", "p2p/serve.go", `	case token <- struct{}{}:
		defer func() { <-token }()`, `	default:`, "TestPeerIsServedOneAtATime", "requests of one peer were answered at a time"},
	{"members only on the topic", "p2p/topic.go", `if n.gate.standing(p) != member && !fault.Planted("anybody-on-topic") {`, `if fault.Planted("") {`, "TestBootstrapPeerThatIsNoMemberGetsPoliciesOnly", "reached a peer that is no member"},
	{"one network", "p2p/stream.go", `if h.Network != n.o.Network {`, `if false {`,
		"TestOtherNetworkIsRefused", ""},
	{"removed members hear no gossip", "p2p/publish.go", `			n.reconcile(ctx)`, ``, "TestRemovedMemberHearsNoGossip", "no member any more"},
	{"nothing is published to nobody", "p2p/publish.go", `if len(n.members()) == 0 {`, `if false {`, "TestNothingIsPublishedToNobody", "it published"},
	{"a comparison waits for its reader alone", "p2p/compare.go", `		<-n.comparing
		defer func() { n.comparing <- struct{}{} }()
`, ``, "TestG10_ComparisonThatIsNotRead", ""},
	{"who sends nothing new is given up", "p2p/pull.go", `} else if uptime()-r.fruit > fruitless {`, `} else if false {`,
		"TestPeerThatSendsNothingNewIsGivenUp", ""},
	{"removed members are closed", "p2p/policy.go", `if n.gate.standing(id) != s.standing && !fault.Planted("keep-connections") {`, `if n.gate.standing(id) != s.standing && fault.Planted("") {`,
		"TestRemovedMemberThatDoesNotListen", ""},
	{"removed members are told", "p2p/farewell.go", `if err := n.swapOn(ctx, s, f); err != nil {`, `if err := ctx.Err(); err != nil {`,
		"TestMemberRemovedWhileConnected", "told"},
	{"repetitions are not passed on", "p2p/topic.go", `if news, blame := n.news(g, from); !news {`, `if news, blame := n.news(g, from); !news && false {`, "TestRepeatedGossipIsNotListenedTo", ""},
	{"nobody carries what was not signed", "p2p/topic.go", `if !named[e.ID()] {`, `if !named[e.ID()] && false {`,
		"TestG10_GarbageOnTheTopicAndTheSenderIsShutOut", ""},
	{"budget of a peer", "p2p/budget.go", `if delay <= 0 || delay == rate.InfDuration {`, `if true {`,
		"TestGreedyPeerIsHeldUpAlone", ""},
	{"length of a frame", "p2p/frame.go", `if n > maxFrame {`, `if false {`,
		"TestBrokenFrames", ""},

	{"no byte of what its author may not write", "crdtstore/turn.go", `if !t.policy.Allowed(s.author, s.tags, s.version) {
			continue`, `if false {
			continue`, "TestG6_UnauthorisedWriteIsNeverVisible", "stored a value"},

	// What a crash leaves.
	{"parts of a commit are taken back", "crdtstore/badger.go", `if err := b.takeBack(); err != nil {`, `if err := error(nil); err != nil {`,
		"TestG5_CommitInPartsIsAllOrNothing", "killed at step"},

	// Who calls the API.
	{"values that drip in", "agent/transport.go", `c.left = min(c.left-time.Since(began)+time.Duration(bytes)*time.Second/slowest, c.timeout)`,
		`c.left = c.timeout + time.Duration(bytes) + time.Since(began)`, "TestUploadThatDrips", ""},
	{"rights of a caller to write", "agent/caller.go", `if !c.rights.writes(p, op.Path) {`, `if false {`, "TestCallerIsNarrowed", "put elsewhere"},
	{"rights of a caller to read", "agent/kv.go", `return p.MayReadPath(k.self, path) && callerOf(ctx).rights.reads(p, path)`,
		`return p.MayReadPath(k.self, path)`, "TestCallerIsNarrowed", "get of a neighbour"},
	{"conditions tell nothing", "agent/caller.go", `if (op.IfVersion != nil || op.MustExist) && !c.rights.reads(p, op.Path) {`, `if false {`,
		"TestCallerIsNarrowed", "probe by a version"},
	{"events of a narrowed watch", "agent/watcher.go", `!w.caller.rights.reads(w.store.Policy(), path)`, `!w.caller.rights.reads(w.store.Policy(), "/") && false`,
		"TestWatchOfANarrowedCaller", ""},
	{"steering is for the agent's host", "agent/caller.go", `	if c.control {`, `	if true {`, "TestCallersByTLS", ""},
	{"certificate of a revoked identity", "agent/papers.go", `case !inForce.Live(k):`, `case false:`, "TestCertificatesAtTheDoor", "a revoked identity"},
	{"certificate that has expired", "agent/papers.go", `if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {`, `if now.Before(leaf.NotBefore) {`,
		"TestCertificatesAtTheDoor", "an identity, expired"},
	{"TLS 1.3 only", "agent/papers.go", `MinVersion:             tls.VersionTLS13,`, `MinVersion: tls.VersionTLS12,`, "TestOtherProtocolsAtTheTLSPort", "TLS 1.2"},
	{"users that no local rule is for", "agent/localrule.go", `if len(mine) == 0 {`, `if false {`, "TestLocalCaller", "refused"},
	{"keys that others can read", "agent/keyfile.go", `& 0o077; loose != 0 {`, `& 0o077; loose != 0 && false {`, "TestKeyFileModes", ""},
	{"time that a client signs", "agent/signed.go", `ahead > signAhead {`, `ahead > signAhead && false {`, "TestWriteSigned", ""},
	{"network that a client signs for", "agent/signed.go", `if network != theirs {`, `if false {`, "TestWriteSigned", ""},
	{"permit of an upload", "agent/permit.go", `if !inForce.MayWritePath(author, path) {`, `if false {`,
		"TestUploadsThatNobodyPermits", "outside of the author's paths"},
	{"the permit is the author's", "agent/permit.go", `if !author.Verify(`, `if false && !author.Verify(`,
		"TestUploadsThatNobodyPermits", "under the name of another"},
	{"the permit is of now", "agent/permit.go", `.Abs() > permitFits {`, `.Abs() > permitFits && false {`,
		"TestUploadsThatNobodyPermits", "of an hour ago"},
}

// TestGuards holds the table to the code: every guard stands where it says, once, and its attacks exist. With -guards it
// takes out each in turn, by an overlay of the compiler and not in the tree, and requires that an attack gets through.
func TestGuards(t *testing.T) {
	exist, err := allTests(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range guards {
		t.Run(strings.ReplaceAll(g.name, " ", "_"), func(t *testing.T) {
			code, err := os.ReadFile(filepath.Join("..", g.file))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(code), g.has); n != 1 {
				t.Fatalf("%s has this guard %d times, want once: %s", g.file, n, g.has)
			}
			for _, name := range regexp.MustCompile(`Test\w+`).FindAllString(g.attacks, -1) {
				if !exist[name] {
					t.Errorf("no test is called %s", name)
				}
			}
			if *takeOut {
				g.takeOut(t, string(code))
			}
		})
	}
}

// takeOut runs the attacks without the guard.
func (g guard) takeOut(t *testing.T, code string) {
	dir := t.TempDir()
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, []byte(strings.Replace(code, g.has, g.without, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := filepath.Abs(filepath.Join("..", g.file))
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	pkg := "./crdtstore" // its tests are those of record and acl, too
	if dir, _, _ := strings.Cut(g.file, "/"); dir == "p2p" || dir == "agent" {
		pkg = "./" + dir
	}
	cmd := exec.Command("go", "test", "-vet=off", "-count=1", "-timeout=5m", "-overlay", list, "-run", "^("+g.attacks+")$", pkg)
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	switch text := string(out); {
	case err == nil:
		t.Errorf("nothing fails without it")
	case strings.Contains(text, "[build failed]") || strings.Contains(text, "[setup failed]"):
		t.Errorf("it cannot be taken out so:\n%s", text)
	case !strings.Contains(text, g.names):
		t.Errorf("something else fails, not what names %q:\n%s", g.names, text)
	}
}
