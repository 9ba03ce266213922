package platform_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"smime-agent/platform"
)

const testHandover = `Software\smime-agent-join-test`

// left makes the key as the package does, with this access list.
func left(t *testing.T, text, sddl string) {
	t.Helper()
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, testHandover, registry.ALL_ACCESS|registry.WOW64_64KEY)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = registry.DeleteKey(registry.LOCAL_MACHINE, testHandover) })
	defer func() { _ = k.Close() }()
	if err := k.SetStringValue("token", text); err != nil {
		t.Fatal(err)
	}
	sd, err := windows.SecurityDescriptorFromString("O:BA" + sddl) // Wine would name another owner
	if err != nil {
		t.Fatal(err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		t.Fatal(err)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if err := windows.SetSecurityInfo(windows.Handle(k), windows.SE_REGISTRY_KEY,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, owner, nil, dacl, nil); err != nil {
		t.Fatal(err)
	}
}

func isLeft(t *testing.T) bool {
	t.Helper()
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, testHandover, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if errors.Is(err, registry.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = k.Close()
	return true
}

func TestTakeHandover(t *testing.T) {
	const closed, readable, open = "D:P(A;;KA;;;SY)(A;;KA;;;BA)", "D:P(A;;KA;;;SY)(A;;KA;;;BA)(A;;KR;;;BU)", "D:P(A;;KA;;;SY)(A;;KA;;;BA)(A;;KA;;;BU)"
	broken := errors.New("broken")
	for _, c := range []struct {
		name, text, sddl string
		keep             error
		want             error
		exposed, stays   bool
	}{
		{name: "private", text: "join-ONE", sddl: closed},
		{name: "readable by others", text: "join-TWO", sddl: readable, exposed: true},
		{name: "written by others", text: "join-THREE", sddl: open, want: platform.ErrDenied},
		{name: "not kept", text: "join-FOUR", sddl: closed, keep: broken, want: broken, stays: true},
		{name: "emptied by a repair", text: "", sddl: closed, want: platform.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			left(t, c.text, c.sddl)
			var got platform.Handover
			err := platform.TakeHandover(`HKLM\`+testHandover, func(h platform.Handover) error {
				got = h
				return c.keep
			})
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if kept := !errors.Is(c.want, platform.ErrDenied) && c.text != ""; kept && (got.Text != c.text || got.Exposed != c.exposed) || !kept && got.Text != "" {
				t.Errorf("handed over: %+v", got)
			}
			if isLeft(t) != c.stays {
				t.Errorf("it is still there: %t", !c.stays)
			}
		})
	}
	err := platform.TakeHandover(`HKLM\`+testHandover, func(platform.Handover) error { return nil })
	if !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
}
