//go:build linux && !cgo

package platform

import (
	"errors"
	"testing"
)

func TestStoresWithoutCgo(t *testing.T) {
	list, err := Stores(t.Context(), StoreOptions{Home: t.TempDir()})
	if len(list) != 1 || list[0].Info().Name != "file" || !errors.Is(err, ErrUnsupported) {
		t.Errorf("stores %v, %v", list, err)
	}
}
