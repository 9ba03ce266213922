package e2e

import "syscall"

// attributes leaves children in this session, where the keychain is unlocked.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
