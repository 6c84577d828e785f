// Package acl turns the policy of a network into decisions: who replicates, who may read a path, who may write it, and
// which writes of the past still count. It also holds the join token.
//
// # The text
//
// A policy is one text that only allows: what no line grants is denied. Lines may stand in any order and mean the same.
//
//	syncagent-policy 1                             # version of this language
//	network  7bq4...                               # the one network that the text is for
//	serial   42                                    # the text with the highest serial is in force
//	format   1                                     # highest block format that may be written
//	identity web1 12D3KooW...                      # gives a key a name
//	group    @web web1 web2                        # lines of one group add up
//	@web     peer                                  # rule: may replicate, "is a member"
//	@web     /hosts/{self} rw                      # rule: who, prefix of whole segments, operation
//	*        /public read                          # any identity that this text names
//	cn:grafana /metrics read                       # X.509 name at the TLS API; spiffe://domain/path likewise
//	revoke   12D3KooW...                           # voids all writes of the key and takes all its rights
//	keep     01932f...-9c1e...-000                 # this version counts, whatever the other lines say
//	retired  12D3KooW... 2026-11-01T00:00:00Z      # no rights any more; its writes up to then are judged as before
//	former   12D3KooW...                           # was named once, has no rights
//	test allow web1 /hosts/web1/facts write        # checked by RunTests, grants nothing
//	test deny  web1 /certs/web/tls.key write
//
// Fields are separated by spaces or tabs, so a rule cannot name a path with a space in it; a rule for the directory
// above can. A # at the start of a line or after a space begins a comment. Operations are read (r), write (w), rw and
// peer; write does not imply read. The prefix / covers everything but /.sys, which needs a rule of its own. {self} is
// the name of the identity that is judged, only as a whole segment. A line whose second field begins with / or is peer
// is a rule, whatever its first field is, so files of replds are valid; a rule that names nobody known is a warning and
// grants nothing. The word deny is reserved.
//
// # Use
//
// ParseSigned reads a text with its signatures, SignedBy tells whether a pinned admin signed it, Effective picks the
// one in force, Compile makes the *Policy that judges. Parse, Lint, RunTests, Admit and SetHeader are for tools.
//
// # Guarantees
//
// The package is pure: no disk, clock, log or goroutine. Decisions depend on nothing but the texts, so agents with the
// same texts agree. What cannot be parsed as a whole is refused as a whole. A nil *Policy denies everything. A *Policy
// never changes once it is made, is safe for concurrent use, and judges without allocating.
package acl
