package platform

import (
	"context"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
	"howett.net/plist"
)

func thisMachine() Machine {
	m := Machine{OS: "darwin", ID: hardwareUUID()}
	if name, err := os.Hostname(); err == nil {
		m.Hostname = name
	}
	if v, err := unix.Sysctl("kern.osproductversion"); err == nil {
		m.Version = "macOS " + v
	}
	return m
}

// registryTimeout is far more than the registry needs to answer.
const registryTimeout = 10 * time.Second

// hardwareUUID is the IOPlatformUUID of the registry, as ioreg(8) prints it with
// -a: an array of dictionaries. Empty if it cannot be had.
func hardwareUUID() string {
	ctx, cancel := context.WithTimeout(context.Background(), registryTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/usr/sbin/ioreg", "-a", "-r", "-d", "1", "-c", "IOPlatformExpertDevice").Output()
	if err != nil {
		return ""
	}
	var devices []struct {
		UUID string `plist:"IOPlatformUUID"`
	}
	if _, err := plist.Unmarshal(out, &devices); err != nil || len(devices) == 0 {
		return ""
	}
	return devices[0].UUID
}
