package trigger

import "syscall"

// dieWithParent makes a command end when we are killed, so that the next start does not run it beside itself. The kernel
// takes the thread that starts the command for the parent.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
