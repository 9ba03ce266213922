//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// noted is what the timed helper writes before the nanoseconds, by the clock and
// of CPU time.
const noted = "bench: nanoseconds of key generation:"

// timedPrograms gives the folder of programs whose helper notes on standard
// error how long the generation of each key took: the call of C_GenerateKeyPair,
// which keeps the pair in memory, or that of crypto/rsa and crypto/ecdsa. The
// sources are not changed; the compiler is given others for two files.
func timedPrograms(b *testing.B) string {
	b.Helper()
	timed.Do(func() { timed.dir, timed.err = buildTimed() })
	if timed.err != nil {
		b.Fatal(timed.err)
	}
	return timed.dir
}

var timed = struct {
	sync.Once
	dir string
	err error
}{}

func buildTimed() (string, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "smime-bin-")
	if err != nil {
		return "", err
	}
	overlay, err := overlayOf(root, dir)
	if err != nil {
		return dir, err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w -X main.version=bench", "-overlay", overlay,
		"-o", dir, "./agent/cmd/...", "./server-stub")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
}

// timedLines are the lines that make a key, by file.
func timedLines() map[string]string {
	return map[string]string{
		"platform/internal/pkcs11/key.go": "\tpublicHandle, privateHandle, err := s.c.GenerateKeyPair(" +
			"s.h, []*mechanism{newMechanism(kind, nil)}, public, private)\n",
		"platform/file.go": "\tmade, err := generate(spec.Algorithm)\n",
	}
}

// TestTimedLines: the benchmark's helper can still be built from these sources.
func TestTimedLines(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := overlayOf(root, t.TempDir()); err != nil {
		t.Error(err)
	}
}

// overlayOf writes changed copies of sources, and the file that names them to
// the compiler.
func overlayOf(root, dir string) (string, error) {
	replace := map[string]string{}
	for name, line := range timedLines() {
		path := filepath.Join(root, filepath.FromSlash(name))
		raw, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		text, err := withTimer(string(raw), line)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		changed := filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[path] = changed
	}
	raw, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, raw, 0o600)
}

// withTimer puts a clock around one line, which must be there once.
func withTimer(text, line string) (string, error) {
	if strings.Count(text, line) != 1 {
		return "", fmt.Errorf("the line to be timed is not there once: %s", strings.TrimSpace(line))
	}
	const imports = "import (\n"
	text = strings.Replace(text, imports, imports+"\tbenchsys \"syscall\"\n\tbenchtime \"time\"\n", 1)
	before := "\tvar usage, used benchsys.Rusage\n\t_ = benchsys.Getrusage(benchsys.RUSAGE_SELF, &usage)\n\tbegan := benchtime.Now()\n"
	after := fmt.Sprintf("\ttook := benchtime.Since(began)\n\t_ = benchsys.Getrusage(benchsys.RUSAGE_SELF, &used)\n"+
		"\tprintln(%q, took.Nanoseconds(), used.Utime.Nano()+used.Stime.Nano()-usage.Utime.Nano()-usage.Stime.Nano())\n", noted)
	return strings.Replace(text, line, before+line+after, 1), nil
}
