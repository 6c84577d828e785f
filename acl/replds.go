package acl

import (
	"bytes"
	"fmt"
	"strings"
)

// ImportReplds makes an unsigned policy text of an access list of replds. Its lines, `identity path operation` and
// `identity peer`, stay as they are; what a policy needs beyond them stands above as comments, and in the list. It
// fails for what Parse does not read.
func ImportReplds(list []byte) (text []byte, needs []string, err error) {
	f, err := Parse(list)
	if err != nil {
		return nil, nil, err
	}
	var names, unfit []string
	known := map[string]bool{"*": true}
	everything := 0
	for _, id := range f.Identities {
		known[id.Alias] = true
	}
	for _, r := range f.Rules {
		if r.Path == "/" && r.Op&Read != 0 {
			everything++
		}
		if known[r.Subject] || isExternal(r.Subject) || f.HasGroup(r.Subject) {
			continue
		}
		known[r.Subject] = true
		if CheckAlias(r.Subject) == nil {
			names = append(names, r.Subject)
		} else {
			unfit = append(unfit, quote(r.Subject))
		}
	}
	var b bytes.Buffer
	b.WriteString("syncagent-policy 1\n")
	if len(names) > 0 {
		b.WriteString("\n# One line for each host, with what `syncagent join` printed there:\n")
		for _, name := range names {
			fmt.Fprintf(&b, "# identity %s PEERID\n", name)
		}
		needs = append(needs, "identity lines for "+strings.Join(names, ", ")+": here a name means a key, there a certificate")
	}
	if len(unfit) > 0 {
		needs = append(needs, "other names instead of "+strings.Join(unfit, ", ")+": they cannot be names of identities")
	}
	if everything == 0 {
		needs = append(needs, "rules that let at least two hosts read /: nobody may read / by this list")
	}
	b.WriteString("\n")
	b.Write(bytes.TrimSpace(Unsigned(list)))
	b.WriteString("\n")
	if _, err := Parse(b.Bytes()); err != nil {
		return nil, nil, fmt.Errorf("not a list of replds: %w", err)
	}
	return b.Bytes(), needs, nil
}
