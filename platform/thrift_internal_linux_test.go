package platform

import (
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestGiveBack: the program's pages are let go of, and it runs on.
func TestGiveBack(t *testing.T) {
	pages := programPages()
	if len(pages) < 1 {
		t.Fatal("no pages of the program are mapped")
	}
	touch(t, pages)
	before := residentFile(t)
	giveBack()
	if after := residentFile(t); after >= before {
		t.Errorf("%d kB of files are resident, %d before", after, before)
	}
}

// touch reads all of it, so that it is there.
func touch(t *testing.T, pages []mapping) {
	t.Helper()
	f, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, m := range pages {
		if _, err := io.Copy(io.Discard, io.NewSectionReader(f, int64(m.from), int64(m.to-m.from))); err != nil {
			t.Fatal(err)
		}
	}
}

// residentFile is RssFile (proc_pid_status(5)) in kB.
func residentFile(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no RssFile")
	return 0
}
