package agent

// Code says what kind of error it is. Codes are stable: programs and exit codes depend on them.
type Code string

// The codes. Those up to CodeReplicas come from the API as well.
const (
	CodeInternal     Code = "internal"
	CodeNotFound     Code = "not_found"
	CodeDenied       Code = "denied"       // the policy forbids it, whether or not the path exists
	CodeNoPolicy     Code = "no_policy"    // nothing is allowed before a policy arrived
	CodeBadPath      Code = "bad_path"     // also a bad prefix
	CodeBadRequest   Code = "bad_request"  // any other wrong input
	CodeBadPolicy    Code = "bad_policy"   // a policy text with errors, or without a signature that counts here
	CodeBadCursor    Code = "bad_cursor"   // not a cursor at all; an outdated one is no error
	CodePrecondition Code = "precondition" // the path has another version, or the policy's serial is too low
	CodeTooLarge     Code = "too_large"
	CodeClock        Code = "clock"
	CodeOldVersion   Code = "old_version"
	CodeDiskFull     Code = "disk_full"
	CodeCorrupt      Code = "corrupt"
	CodeStopping     Code = "stopping" // the agent is going down
	CodeBusy         Code = "busy"     // too many requests at once
	CodeTimeout      Code = "timeout"
	CodeCanceled     Code = "canceled"

	CodeUnreachable Code = "unreachable" // no agent at the address
	CodeBadConfig   Code = "bad_config"
	CodeBadKeyFile  Code = "bad_key_file"
	CodeNoKeyFile   Code = "no_key_file"
	CodeInUse       Code = "in_use" // a port, socket or data directory has another owner

	CodeBadBackup    Code = "bad_backup" // not a backup, or cut off, or changed
	CodeWrongNetwork Code = "wrong_network"
)

// Error is an error for people and programs.
type Error struct {
	Code    Code
	Message string // lower case, no full stop
	Hint    string // what to do about it, with a command or config key; may be empty
	Err     error  // what caused it, may be nil; Message says enough of it
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }
