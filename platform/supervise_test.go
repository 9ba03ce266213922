package platform_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/platform"
)

const superviseVariable = "SMIME_TEST_SUPERVISE"

// TestSupervised is the program that TestSupervise runs: it crashes until a file
// is there.
func TestSupervised(t *testing.T) {
	dir := os.Getenv(superviseVariable)
	if dir == "" {
		t.Skip("SKIP: TestSupervise runs this")
	}
	for i := range 2 {
		path := filepath.Join(dir, fmt.Sprint(i))
		if _, err := os.Stat(path); err != nil {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(os.Stderr, "last words %d\n", i)
			os.Exit(7)
		}
	}
}

func TestSupervise(t *testing.T) {
	dir, err := os.MkdirTemp("", "supervise-")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(superviseVariable, dir)
	var words []string
	start := time.Now()
	err = platform.Supervise(t.Context(), []string{"-test.run", "^TestSupervised$"}, func(err error, last []byte) {
		words = append(words, fmt.Sprintf("%v: %s", err, last))
	})
	if err != nil || len(words) != 2 || !strings.Contains(words[0], "last words 0") || !strings.Contains(words[1], "last words 1") {
		t.Errorf("%v: %q", err, words)
	}
	if took := time.Since(start); took < 3*time.Second {
		t.Errorf("it did not pause: %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := platform.Supervise(ctx, nil, nil); err != nil {
		t.Errorf("an ended context: %v", err)
	}
	for i := range 2 {
		_ = os.Remove(filepath.Join(dir, fmt.Sprint(i)))
	}
	_ = os.Remove(dir)
}
