package main

import (
	"slices"
	"testing"
)

// TestVersionsInOrder: numbers in versions are numbers, and what is no version comes first.
func TestVersionsInOrder(t *testing.T) {
	want := []string{"", "unknown", "v2", "0.1.0", "1.2", "1.9.3", "1.10.0", "1.10.0-rc2", "1.10.0-rc10"}
	got := []string{"v2", "1.10.0-rc10", "1.9.3", "unknown", "1.10.0", "", "0.1.0", "1.10.0-rc2", "1.2"}
	slices.SortFunc(got, compareVersions)
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
