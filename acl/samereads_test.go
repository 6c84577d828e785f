package acl

import "testing"

// TestSameReads holds that two identities read the same only if no rule gives one of them what the other lacks; a rule
// for everything stands for all but /.sys.
func TestSameReads(t *testing.T) {
	p := policy(t, `
identity a $a
identity b $b
identity c $c
identity d $d
identity e $e
identity f $f
group @two c d
@two /x read
a / read
b / read
b /y read
e / read
e /.sys/z read
* /public read
revoke $f
`)
	for pair, want := range map[string]bool{"ab": true, "cd": true, "ac": false, "ae": false, "cf": false, "ff": true, "aa": true} {
		if got := p.SameReads(key(pair[:1]), key(pair[1:])); got != want {
			t.Errorf("%s: %v", pair, got)
		}
	}
}
