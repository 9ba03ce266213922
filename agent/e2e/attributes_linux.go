package e2e

import "syscall"

// attributes: whatever ends this program ends its children too; and none of them
// has our terminal, so that nobody but a test's own desktop is ever asked
// anything.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
}
