package platform_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"smime-agent/platform"
)

// TestWatchFiles makes each kind of change to what is followed, and some to what
// is not, and counts on nothing but that a change is told of.
func TestWatchFiles(t *testing.T) {
	w, err := platform.WatchFiles()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, folder, late := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "policy.d"), filepath.Join(dir, "a", "b", "c.pem")
	follow := func() { w.Follow([]string{file, folder, late, ""}) }
	follow()
	write := func(path string) func() error { return func() error { return os.WriteFile(path, []byte("x"), 0o600) } }
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"a file comes", write(file)},
		{"it is written", write(file)},
		{"it gets other rights", func() error { return os.Chmod(file, 0o640) }},
		{"a folder comes", func() error { return os.Mkdir(folder, 0o700) }},
		{"a file comes into it", write(filepath.Join(folder, "10.yaml"))},
		{"a folder above comes", func() error { return os.MkdirAll(filepath.Dir(late), 0o700) }},
		{"the file below it", write(late)},
		{"another one takes a file's place", func() error {
			return os.Rename(late, file)
		}},
		{"a folder goes", func() error { return os.RemoveAll(folder) }},
		{"a file goes", func() error { return os.Remove(file) }},
	} {
		drain(w)
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-w.Changed():
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: not told", c.name)
		}
		time.Sleep(20 * time.Millisecond) // one change may be several events
		follow()
	}
	drain(w)
	if err := write(filepath.Join(dir, "other"))(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.Changed():
		t.Error("told of a file that is not followed")
	case <-time.After(100 * time.Millisecond):
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func drain(w *platform.FileWatch) {
	for {
		select {
		case <-w.Changed():
		default:
			return
		}
	}
}
