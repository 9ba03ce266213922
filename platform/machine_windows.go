package platform

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// The registry's places of what the installation says of itself. Windows 11 still
// calls itself Windows 10 in ProductName; its builds begin at 22000.
const (
	cryptographyKey = `SOFTWARE\Microsoft\Cryptography`
	currentVersion  = `SOFTWARE\Microsoft\Windows NT\CurrentVersion`
	firstBuildOf11  = 22000
	workstation     = 1 // VER_NT_WORKSTATION (winnt.h)
)

func thisMachine() Machine {
	m := Machine{OS: "windows", Version: windowsVersion()}
	if name, err := os.Hostname(); err == nil {
		m.Hostname = name
	}
	m.ID = registryText(cryptographyKey, "MachineGuid")
	return m
}

// windowsVersion reads like "Windows 11 Pro 23H2 (10.0.22631)". RtlGetVersion
// tells the truth whatever the program's manifest says.
func windowsVersion() string {
	v := windows.RtlGetVersion()
	product := strings.TrimPrefix(registryText(currentVersion, "ProductName"), "Microsoft ")
	if v.BuildNumber >= firstBuildOf11 && v.ProductType == workstation {
		product = strings.Replace(product, "Windows 10", "Windows 11", 1)
	}
	number := fmt.Sprintf("%d.%d.%d", v.MajorVersion, v.MinorVersion, v.BuildNumber)
	parts := strings.Fields(product + " " + registryText(currentVersion, "DisplayVersion"))
	if len(parts) == 0 {
		return "Windows " + number
	}
	return strings.Join(parts, " ") + " (" + number + ")"
}

// registryText is empty if there is no such text.
func registryText(key, name string) string {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, key, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return ""
	}
	defer func() { _ = k.Close() }()
	text, _, err := k.GetStringValue(name)
	if err != nil {
		return ""
	}
	return text
}
