package platform

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"smime-agent/platform/internal/glibc"
)

// giveBack gives free memory of the C library back, and lets go of the pages of the
// program's file: most served the start only, and what is needed again is still in
// the page cache as long as the system has no better use for it.
func giveBack() {
	glibc.Trim()
	for _, m := range programPages() {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED) // advice
	}
}

// mapping is a part of the address space.
type mapping struct{ from, to uintptr }

// programPages are the parts of the running program's file that are mapped to be
// read or run only, and hold nothing but what is in the file: relocations and a
// debugger's marks would be lost (proc_pid_smaps(5)).
func programPages() []mapping {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }() // it was only read
	var all []mapping
	var now *mapping
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := lines.Text()
		var m mapping
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %4s", &m.from, &m.to, &mode); n == 3 {
			now = nil
			if strings.HasSuffix(line, " "+self) && (mode == "r-xp" || mode == "r--p") {
				now = &m
			}
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		if now != nil && name == "Anonymous" {
			if strings.TrimSpace(value) == "0 kB" {
				all = append(all, *now)
			}
			now = nil
		}
	}
	return all
}
