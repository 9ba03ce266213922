package platform_test

import (
	"testing"
	"time"

	"golang.org/x/sys/windows/registry"

	"smime-agent/platform"
)

// TestWatchPolicyKey makes each kind of change to a key that is followed, and
// begins before it is there.
func TestWatchPolicyKey(t *testing.T) {
	const path = testPolicy + `-watched`
	w, err := platform.WatchFiles()
	if err != nil {
		t.Fatal(err)
	}
	w.Follow([]string{`HKLM\` + path, `C:\ProgramData\smime-agent\config.yaml`, ""})
	time.Sleep(200 * time.Millisecond) // for the thread to come so far
	var k registry.Key
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"the key comes", func() error { k = policyKey(t, path); return nil }},
		{"a value comes", func() error { return k.SetStringValue("server", "a.example:1") }},
		{"it is written", func() error { return k.SetStringValue("server", "b.example:1") }},
		{"a key below comes", func() error {
			below, _, err := registry.CreateKey(registry.LOCAL_MACHINE, path+`\server_pin`, registry.ALL_ACCESS|registry.WOW64_64KEY)
			if err != nil {
				return err
			}
			return below.Close()
		}},
		{"a value goes", func() error { return k.DeleteValue("server") }},
		{"a key below goes", func() error { return registry.DeleteKey(registry.LOCAL_MACHINE, path+`\server_pin`) }},
	} {
		settleWatch(w)
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		select {
		case <-w.Changed():
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: not told", c.name)
		}
	}
	settleWatch(w)
	w.Follow(nil)
	time.Sleep(100 * time.Millisecond)
	if err := k.SetStringValue("server", "c.example:1"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.Changed():
		t.Error("told of a key that is not followed any more")
	case <-time.After(200 * time.Millisecond):
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if w.Enough() {
		t.Error("files are not followed")
	}
}

// settleWatch takes what is told of the change before; between two
// notifications the thread needs a moment.
func settleWatch(w *platform.FileWatch) {
	for {
		select {
		case <-w.Changed():
		case <-time.After(200 * time.Millisecond):
			return
		}
	}
}

// TestWatchNothingElse: while a key is not there, what others change in the key
// above it tells nothing; HKLM\Software is never at rest.
func TestWatchNothingElse(t *testing.T) {
	const above = `Software\smime-agent-above`
	top := policyKey(t, above)
	other := policyKey(t, above+`\other`)
	w, err := platform.WatchFiles()
	if err != nil {
		t.Fatal(err)
	}
	w.Follow([]string{`HKLM\` + above + `\ours\ours too`})
	time.Sleep(200 * time.Millisecond) // for the thread to come so far
	settleWatch(w)
	deep := policyKey(t, above+`\other\deep`)
	for _, k := range []registry.Key{top, other, deep} {
		if err := k.SetStringValue("value", "changed"); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-w.Changed():
		t.Error("told of what others changed")
	case <-time.After(time.Second):
	}
	policyKey(t, above+`\ours`)
	policyKey(t, above+`\ours\ours too`)
	select {
	case <-w.Changed():
	case <-time.After(30 * time.Second):
		t.Error("not told of the key that came")
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
