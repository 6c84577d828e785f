package agent

// AlarmKind is a code that alarms can have. Codes are stable: programs of others look for them.
type AlarmKind struct {
	Code    string
	Means   string
	Hint    string // what to do
	Restart bool   // it stays until the agent is started again: what it tells of has happened; others end by themselves
}

// AlarmKinds are all codes that there are. docs/operations.md has the same table.
var AlarmKinds = []AlarmKind{
	{alarmNoPolicy, "this host has no policy yet: nothing can be read or written",
		"on the host with the admin key: syncagent acl admit, with the line that syncagent join printed here; " +
			"after a change of `admins`: syncagent acl log, then acl revert SERIAL --admin-key FILE", false},
	{alarmNoMember, "the policy in force does not let this host replicate",
		"if that is a mistake: syncagent acl admit, with its identity line, on the host with the admin key; a revoked key stays out, join anew with another --dir", false},
	{alarmBadPolicy, "the policy file beside the configuration cannot be taken", "syncagent acl check, then syncagent acl apply", false},
	{"policy-twins", "two policies with one serial exist; the one with the higher hash is in force",
		"apply a policy with a higher serial: syncagent acl apply", false},
	{alarmPolicyDiffers, "a connected peer goes by another policy for more than 30 seconds",
		"one of the two hosts does not take the other's policy: compare `admins` in their configurations, and look for \"policy from a peer not taken\" in their logs", false},
	{"bad-reload", "the configuration has a fault; the old settings stay in force", "syncagent config check", false},
	{alarmTLS, "the TLS files of the API changed and are of no use; those before stay in use",
		"make a good pair (syncagent cert server); it is taken when it is there", false},
	{"paused", "all connections to peers are closed, and no new ones are made", "syncagent peers resume", false},
	{"old-version", "the policy asks for a block format that this program does not know: it writes nothing",
		"install the version of syncagent that the other hosts run", false},
	{"disk-full", "less than store.min_free is left: nothing is written or taken in", "free space on the disk of data_dir, or lower store.min_free", false},
	{alarmClock, "this host's clock is more than five minutes from that of most peers: writes are refused",
		"mend the time service of this host; agent time never goes back, so if it was ahead, run syncagent doctor --reset-clock once the clock is right", false},
	{"corrupt", "something that was stored does not have its hash any more",
		"check the disk; stop the agent, move its store away and start it: the other agents fill it again", true},
	{"value-lost", "a part of a large value is damaged or missing here, and no agent gave it back: the value cannot be read",
		"start a host that may have it, put the value again, or take it out of a backup (syncagent export --backup)", false},
	{"store-damaged", "the store could not be read; it was moved aside, and filled from what still verified and from the peers",
		"check the disk; remove the copy that the message names when nothing is missed", true},
	{"block-refused", "go-ds-crdt did not take a block of another agent; it was set aside", "report it, with the block that the message names", true},
	{"entry-lost", "nobody has an entry of a write any more; the rest of the write is shown without it",
		"write the path again, or start a host that may have it", true},
	{"diverged", "a peer has or shows something else, and nothing explains it: damage on a disk, or an error in the program",
		"syncagent diff PEER on both hosts, and syncagent doctor; keep what they print, and report it", false},
	{"invalid-data", "a member sent what no sound agent sends",
		"look at the member that the message names: its program or its host may not be sound", true},
	{"fork", "an agent signed two blocks with one number: its store was rolled back, or its identity is used twice",
		"look at the host that the message names; nothing is lost, both blocks count", true},
	{"identity-reused", "a block of this agent came back that its store does not have: the store was rolled back, or another agent has the same key",
		"never run two agents with one identity.key", true},
	{"trigger-files", "a file in triggers_dir is faulty; the other triggers run", "mend the files that the message names, then syncagent reload", false},
	{"trigger-failed", "a command after a change failed; it is run again at growing intervals, or given up if attempts says so",
		"syncagent status -o json has its last output", false},
	{"mirror-halted", "the directory of a mirror is not the one that it was: nothing is written or removed",
		"bring the directory back, or remove the mirror's journal to start anew", false},
	{"mirror-held", "more files would be removed at once than max_delete allows",
		"if that is meant: syncagent mirror confirm NAME", false},
	{"mirror-paused", "the configuration keeps a mirror from changing anything", "when it shall go on: take out `paused` and run syncagent reload", false},
	{"mirror-incomplete", "some paths cannot be files in the directory of a mirror", "syncagent status names the first of them, and why", false},
	{"mirror-failing", "a mirror cannot go on, and tries again", "the message says why: a full disk, a directory that cannot be written", false},
}

func alarmHint(code string) string {
	for _, k := range AlarmKinds {
		if k.Code == code {
			return k.Hint
		}
	}
	return ""
}
