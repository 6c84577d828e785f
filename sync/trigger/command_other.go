//go:build !linux

package trigger

import "syscall"

func dieWithParent(*syscall.SysProcAttr) {}
