package platform_test

import (
	"errors"
	"reflect"
	"testing"

	"golang.org/x/sys/windows/registry"

	"smime-agent/platform"
)

const testPolicy = `Software\Policies\smime-agent-test`

func TestReadPolicy(t *testing.T) {
	if _, err := platform.ReadPolicy(`HKLM\` + testPolicy); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("no key: %v, want ErrNotFound", err)
	}
	if _, err := platform.ReadPolicy(`C:\policy.d`); !errors.Is(err, platform.ErrUnsupported) {
		t.Errorf("a folder: %v, want ErrUnsupported", err)
	}
	k := policyKey(t, testPolicy)
	for _, err := range []error{
		k.SetStringValue("server", "smime.example.com:8443"),
		k.SetDWordValue("log_max_files", 7),
		k.SetStringsValue("server_pin", []string{"sha256/a", "sha256/b"}),
		k.SetBinaryValue("odd", []byte{1, 2}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	list := policyKey(t, testPolicy+`\modules`)
	for _, n := range []string{"10", "1", "2"} {
		if err := list.SetStringValue(n, "item "+n); err != nil {
			t.Fatal(err)
		}
	}
	got, err := platform.ReadPolicy(`HKLM\` + testPolicy)
	if err != nil {
		t.Fatal(err)
	}
	want := []platform.PolicyValue{
		{Name: "log_max_files", Text: "7", Number: true},
		{Name: "modules", Items: []string{"item 1", "item 2", "item 10"}},
		{Name: "odd", Odd: true},
		{Name: "server", Text: "smime.example.com:8443"},
		{Name: "server_pin", Items: []string{"sha256/a", "sha256/b"}},
	}
	if !reflect.DeepEqual(got.Values, want) {
		t.Errorf("%+v", got.Values)
	}
	t.Logf("private: %t", got.Private)
}

// policyKey makes a key for one test.
func policyKey(t *testing.T, path string) registry.Key {
	t.Helper()
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, path, registry.ALL_ACCESS|registry.WOW64_64KEY)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = k.Close()
		if err := registry.DeleteKey(registry.LOCAL_MACHINE, path); err != nil {
			t.Error(err)
		}
	})
	return k
}
