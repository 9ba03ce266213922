package platform

import "testing"

// TestAWatchThatCannotBe of a key ends by itself, is no watch then, and leaves no
// event behind that would be set when it is long closed.
func TestAWatchThatCannotBe(t *testing.T) {
	w := &fileWatch{}
	if err := w.open(func() { t.Error("told of nothing") }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.follow([]string{`HKLM\smime-agent-is-not-here`}) // nothing is above it
		w.gone.Wait()
		w.mu.Lock()
		left := len(w.keys)
		w.mu.Unlock()
		if left != 0 {
			t.Errorf("%d events are kept", left)
		}
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
}
