package config

import (
	"strings"
	"testing"
	"time"
)

// TestHostileFiles: no file of the allowed size holds the reader up.
func TestHostileFiles(t *testing.T) {
	const patience = 2 * time.Minute // one that grows with the square takes far longer; usually it is well under a second
	for _, part := range []string{"[", "{", "- ", "? ", "a: ", "&a ", "!", "'", "\"", "|", "[a,", "{a: ", "- - ", "a:\n ", "---\n", "-\n", ">-\n", "&a [*a,"} {
		for _, line := range []int{maxLineBytes - 1, maxFile} {
			text := strings.Repeat(strings.Repeat(part, line/len(part))+"\n", maxFile/line)
			start := time.Now()
			readYAML([]byte(text), "f", FromFile, true)
			if took := time.Since(start); took > patience {
				t.Errorf("%q in lines of %d bytes: %v", part, line, took)
			}
		}
	}
	if _, problems, broken := readYAML([]byte(strings.Repeat("[", maxBrackets+1)), "f", FromFile, true); !broken || len(problems) != 1 {
		t.Errorf("endless brackets: %v", problems)
	}
}
