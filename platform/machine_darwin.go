package platform

import (
	"context"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
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

// hardwareUUID asks ioreg(8) for the registry's entry of the machine, as a
// property list (-a).
func hardwareUUID() string {
	ctx, cancel := context.WithTimeout(context.Background(), registryTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/usr/sbin/ioreg", "-a", "-r", "-d", "1", "-c", "IOPlatformExpertDevice").Output()
	if err != nil {
		return ""
	}
	return platformUUID(out)
}
