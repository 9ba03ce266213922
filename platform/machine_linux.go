package platform

import (
	"os"
	"strconv"
	"strings"
)

func thisMachine() Machine {
	m := Machine{OS: "linux"}
	if name, err := os.Hostname(); err == nil {
		m.Hostname = name
	}
	// The orders are those of os-release(5) and machine-id(5).
	m.Version = prettyName(firstFile("/etc/os-release", "/usr/lib/os-release"))
	m.ID = machineID(firstFile("/etc/machine-id", "/var/lib/dbus/machine-id"))
	return m
}

// prettyName reads os-release(5), whose lines are assignments of a shell.
func prettyName(release string) string {
	for line := range strings.Lines(release) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME=")
		if !ok {
			continue
		}
		if s, err := strconv.Unquote(value); err == nil && value[0] == '"' {
			return s
		}
		return strings.Trim(value, `"'`)
	}
	return ""
}

// machineID is 32 hexadecimal digits, or the word "uninitialized" during the
// first boot (machine-id(5)).
func machineID(text string) string {
	id := strings.TrimSpace(text)
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}
